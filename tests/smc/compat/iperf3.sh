#!/usr/bin/env bash
# what: iperf3: both directions, four streams, a file compared afterwards, sendfile
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs iperf3

seconds=$([[ -n $SHORT ]] && echo 1 || echo 2)
port=$(free_port)
good_statuses="1" # so it says that it was interrupted
server server iperf3 --server --bind 127.0.0.1 --port "$port" --forceflush
wait_for_port "$port"

measure() { # FILE OPTIONS...
	client iperf3 --client 127.0.0.1 --port "$port" --json "${@:2}" >"$1"
	"$PYTHON" - "$1" <<'END'
import json, sys
result = json.load(open(sys.argv[1]))
if "error" in result:
    sys.exit("FAILED: " + result["error"])
sums = [value for name, value in result["end"].items() if name.startswith("sum_")]
if len(sums) < 2 or any(sum["bytes"] <= 0 for sum in sums):
    sys.exit(f"FAILED: nothing was moved: {result['end']}")
END
}

measure both --bidir --time "$seconds"
measure "four backward" --parallel 4 --reverse --time "$seconds"
if [[ -z $SHORT ]]; then
	measure forward --time "$seconds"
	measure backward --reverse --time "$seconds"
	measure four --parallel 4 --time "$seconds"
	measure small --length 64 --time "$seconds"
	measure sendfile --zerocopy --time "$seconds"
	measure "sendfile backward" --zerocopy --reverse --time "$seconds"
	measure nodelay --no-delay --length 1000 --time "$seconds"
	measure paced --bitrate 50M --parallel 2 --time "$seconds"
fi

# What arrives is what was sent, as far as the server read before the client said that the test was over. After a write that
# took only a part, iperf3 3.12 itself goes on with other bytes: pages are written whole.
bytes=$([[ -n $SHORT ]] && echo 20000000 || echo 300000000)
random_file sent "$bytes"
taker=$(free_port)
server taker iperf3 --server --bind 127.0.0.1 --port "$taker" --file "$SCRATCH/received"
wait_for_port "$taker"
client iperf3 --client 127.0.0.1 --port "$taker" --file sent --bytes "$bytes" --length 4096 >file.log
written() { grep -q 'of .*received$' taker.log; }
eventually written
received=$(stat -c %s received)
((received > 0)) || fail "iperf3's server wrote nothing"
cmp -n "$received" sent received || fail "iperf3's server received other bytes"

finish
