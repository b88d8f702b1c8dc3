#!/usr/bin/env bash
# what: memcached with four threads: both protocols, pipelines, large values, many connections
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs memcached

port=$(free_port)
rounds=$([[ -n $SHORT ]] && echo 3 || echo 40)
# shellcheck disable=SC2046 # several words; memcached wants to be told whom root becomes
server memcached memcached -l 127.0.0.1 -p "$port" -U 0 -t 4 -m 256 -I 4m -c 2000 $( ((EUID != 0)) || echo -u root)
wait_for_port "$port"

client "$PYTHON" "$HERE/memcached_client.py" "$port" 12 "$rounds"

finish
