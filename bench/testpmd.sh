#!/bin/sh
# Raw frames of ours against dpdk-testpmd's, one way over memif between two processes on CPU 0 and CPU 1.
# Prints both halves and the ratio for each frame size. Both sides have the same device, with the buffer and ring sizes that
# ports of ours choose; --mbuf-size is that of our pools. Normal pages; no root unless REALTIME is set.
#
# usage: bench/testpmd.sh [SIZE...]      frame sizes in bytes (64 1500 9000)
#   SECONDS_EACH=2   length of each run
#   ROUNDS=3         runs of each; the best of each side counts
#   REALTIME=1       as root: measured threads run before all others for the length of a run, for machines that are not idle
set -eu

cd "$(dirname "$0")/.."
sizes=${*:-64 1500 9000}
seconds=${SECONDS_EACH:-2}
rounds=${ROUNDS:-3}
realtime=${REALTIME:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v dpdk-testpmd >/dev/null || { echo "dpdk-testpmd is missing: apt-get install dpdk-dev" >&2; exit 1; }
cargo build --quiet --release -p softrdma-dpdk-glue --example raw
raw=${CARGO_TARGET_DIR:-target}/release/examples/raw

# One testpmd: name, CPU, memif role, what it forwards.
testpmd() {
    timeout -s KILL $((seconds + 20)) dpdk-testpmd --lcores "0@$2,1@$2" --no-huge -m 512 --no-shconf --no-telemetry \
        --no-pci --iova-mode=va --log-level='*:4' --file-prefix="$1-$3" \
        --vdev "net_memif0,role=$3,id=0,socket=$1,$memif" -- --forward-mode="$4" --nb-cores=1 \
        --total-num-mbufs=8192 --mbuf-size=$((buffer + 128)) --txpkts="$size" --auto-start --stats-period=1 \
        --no-flush-rx </dev/null >"$work/$3.log" 2>&1 &
}

# The thread of a testpmd that forwards.
worker() {
    for task in /proc/"$1"/task/*; do
        case $(cat "$task/comm" 2>/dev/null) in rte-worker*|lcore-worker*) basename "$task" ;; esac
    done
}

# Waits until the testpmd under a timeout command forwards.
await_forwarding() {
    for _ in $(seq 100); do
        for child in $(pgrep -P "$1"); do
            if [ -n "$(worker "$child")" ]; then sleep 0.5; return; fi
        done
        sleep 0.1
    done
    echo "dpdk-testpmd did not start:" >&2
    cat "$work"/*.log >&2
    exit 1
}

# Frames per second that testpmd's receiver saw in its best second.
testpmd_rate() {
    testpmd "softrdma-testpmd-$$-$1" 1 server rxonly; server=$!
    await_forwarding "$server"
    testpmd "softrdma-testpmd-$$-$1" 0 client txonly; client=$!
    await_forwarding "$client"
    threads=""
    if [ -n "$realtime" ]; then
        for child in $(pgrep -P "$server") $(pgrep -P "$client"); do
            threads="$threads $(worker "$child")"
            # It sleeps, but for printing what was counted.
            chrt -f -p 15 "$child" || true
        done
        for thread in $threads; do chrt -f -p 10 "$thread" || true; done
    fi
    sleep "$seconds"
    for thread in $threads; do chrt -o -p 0 "$thread" || true; done
    sleep 1.2
    pkill -KILL -P "$server" || true
    pkill -KILL -P "$client" || true
    wait "$server" "$client" 2>/dev/null || true
    awk '/Rx-pps/ { if ($2 > best) best = $2 } END { printf "%.0f\n", best }' "$work/server.log"
}

# Frames per second of ours, second by second as testpmd counts them, and the round trip.
raw_rate() {
    for _ in $(seq "$seconds"); do
        if [ -n "$realtime" ]; then set -- chrt -f 10 timeout -s KILL 30; else set --; fi
        RAW_MEMIF=$memif "$@" "$raw" "$size" 1
    done
}

# The supervisor must be able to end what runs before all others; what it starts is ordinary again.
if [ -n "$realtime" ]; then chrt --reset-on-fork -f -p 20 $$; fi

printf '%8s %14s %14s %7s   %s\n' 'frame B' 'testpmd Mpps' 'raw Mpps' 'ratio' 'raw round trip'
for size in $sizes; do
    buffer=2048 slots=8
    if [ "$size" -gt 2000 ]; then
        buffer=$(((((size + 12 + 63) / 64) | 1) * 64)) slots=5
        while [ "$slots" -lt 8 ] && [ $((buffer << slots)) -lt 1048576 ]; do slots=$((slots + 1)); done
    fi
    memif="bsize=$buffer,rsize=$slots"
    theirs=0
    : >"$work/raw"
    for round in $(seq "$rounds"); do
        rate=$(testpmd_rate "$size-$round")
        if [ "$rate" -gt "$theirs" ]; then theirs=$rate; fi
        raw_rate >>"$work/raw"
    done
    awk -v theirs="$theirs" -v size="$size" '
        { for (i = 1; i < NF; i++) { if ($(i + 1) == "Mpps" && $i > ours) ours = $i
                                    if ($i == "p50" && (trip == 0 || $(i + 1) < trip)) trip = $(i + 1) } }
        END { printf "%8d %14.3f %14.3f %7.2f   p50 %.2f us\n", size, theirs / 1e6, ours, ours / (theirs / 1e6), trip }
    ' "$work/raw"
done
