#!/usr/bin/env bash
# what: qperf: TCP bandwidth and latency over message sizes
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs qperf

port=$(free_port)
data=$(free_port)
server server qperf --listen_port "$port"
wait_for_port "$port"

measure() { # FILE OPTIONS...
	client qperf 127.0.0.1 --listen_port "$port" --ip_port "$data" --unify_units --precision 6 "${@:2}" >"$1" 2>&1
	lacks "$1" 'fail|timed out|error'
	same "results in $1" "$(grep -cE '= +[0-9.]*[1-9]' "$1")" "$(grep -cE '^ +(bw|latency) ' "$1")"
}

if [[ -n $SHORT ]]; then
	counting measure short --time 1 --msg_size 1000 tcp_bw tcp_lat
	same "lines of results" "$(grep -cE '^ +(bw|latency) ' short)" 2
else
	counting measure bandwidth --time 1 --loop msg_size:1:256K:*16 tcp_bw
	counting measure latency --time 1 --loop msg_size:1:64K:*16 tcp_lat
	same "lines of results" "$(cat bandwidth latency | grep -cE '^ +(bw|latency) ')" 10
fi

finish
