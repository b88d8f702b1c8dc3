#!/usr/bin/env bash
# what: an RPC pair on Debian's thrift: records compared, exceptions, one-way calls, several connections
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"

programs=$BUILT/smc-thrift
status=0
"$HERE/thrift/build.sh" "$programs" >build.log 2>&1 || status=$?
((status != 77)) || skip_case "$(<build.log)"
((status == 0)) || fail "the pair does not build: $(tail -n 5 build.log)"

calls=$([[ -n $SHORT ]] && echo 300 || echo 10000)
port=$(free_port)
server server "$programs/thrift_server" "$port"
wait_for_port "$port"
client "$programs/thrift_client" "$port" check "$calls" 4
holds <(client "$programs/thrift_client" "$port" measure 0.5) '^[0-9.]*[1-9]'

finish
