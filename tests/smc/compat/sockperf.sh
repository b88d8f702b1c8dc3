#!/usr/bin/env bash
# what: sockperf: ping-pong, throughput and under load, with its own checks of data
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs sockperf

# Three listeners in one server, which waits for all of their connections at once; and one that blocks in recvfrom().
ports=()
for _ in 1 2 3; do ports+=("$(free_port)"); done
printf 'T:127.0.0.1:%s\n' "${ports[@]}" >feed
single=$(free_port)

serve() { # MULTIPLEXER
	local port
	server server sockperf server -f feed -F "$1"
	for port in "${ports[@]}"; do wait_for_port "$port"; done
}

measure() { # FILE SUBCOMMAND OPTIONS...
	client sockperf "$2" --time 1 "${@:3}" >"$1" 2>&1
	holds "$1" 'Test ended'
	lacks "$1" 'ERROR|mismatch'
}

# Every message comes back, once, in order, with the bytes it had.
ping_pong() { # FILE OPTIONS...
	measure "$1" ping-pong --data-integrity "${@:2}"
	holds "$1" '# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0'
	holds "$1" 'ReceivedMessages=[1-9]'
}
# Replies that are still on their way at the end count as dropped; and if a whole second goes by between the first messages
# and the last, sockperf leaves all of them out. Over plain TCP both are seen as well, on a machine that others use. What a
# stream loses, it loses the rest with: every attempt would say so.
under_load() { # FILE OPTIONS...
	local attempt
	for attempt in 1 2 3; do
		measure "$1" under-load --mps=10000 -m 200 "${@:2}"
		grep -qE 'No valid observations|dropped messages = [1-9]' "$1" || break
		cp "$1" "$1.$attempt"
	done
	holds "$1" '# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0'
}
throughput() { # FILE OPTIONS...
	measure "$1" throughput "${@:2}"
	holds "$1" 'Summary: BandWidth is [0-9.]*[1-9]'
}
to() { echo "--tcp -i 127.0.0.1 -p $1"; } # PORT

# shellcheck disable=SC2046 # several words
all_at_once() { # FILES' BEGINNING
	local job jobs=()
	ping_pong "$1-pp.log" $(to "${ports[0]}") -m 14 &
	jobs+=($!)
	under_load "$1-ul.log" $(to "${ports[1]}") &
	jobs+=($!)
	throughput "$1-tp.log" $(to "${ports[2]}") -m 64000 &
	jobs+=($!)
	for job in "${jobs[@]}"; do wait "$job"; done
}

if [[ -n $SHORT ]]; then
	serve e
	all_at_once epoll
else
	for multiplexer in s p e; do
		serve "$multiplexer"
		ping_pong "$multiplexer-pp-three.log" -f feed -F "$multiplexer" -m 14
		all_at_once "$multiplexer"
		count_accelerated
		stop_last
	done
	server single sockperf server --tcp -i 127.0.0.1 -p "$single"
	wait_for_port "$single"
	# shellcheck disable=SC2046 # several words
	{
		for size in 1472 65000; do ping_pong "pp-$size.log" $(to "$single") -m "$size"; done
		ping_pong pp-range.log $(to "$single") -m 5000 --range 4000
		throughput tp-64.log $(to "$single") -m 64
		throughput tp-nodelay.log $(to "$single") -m 64 --tcp-avoid-nodelay
	}
fi

finish
