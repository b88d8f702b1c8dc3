#!/usr/bin/env bash
# usage: bench/baselines.sh: what softrdma is measured against, with both halves of each ratio (make bench). Each
# contest runs its contenders in turns. Figures mean something on a machine that does nothing else meanwhile.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../tests/common.sh"

baseline() { cargo run --quiet --release -p softrdma-bench --bin "$@"; }

# A bar that was missed is printed as such and does not end the run.
loss() { bench/loss.sh --quick || (($? == 1)); }

perf() {
	# shellcheck disable=SC2046 # no word or two
	cargo run --quiet --release -p softrdma-perf $(dpdk_features) -- "$@"
}

step "kernel-socket: its stream against plain TCP, ping-pong of 64 B" baseline tcp_pingpong
step "kernel-socket: RDMA against plain TCP between two processes, 64 B" \
	perf pair --scheme kernel-socket --op send,write --size 64 --with-raw --quiet
step "sequential: the engine against bare smoltcp, both in memory" baseline smoltcp_baseline
if (($(nproc) > 1)); then
	step "softrdma: full duplex with its halves on two cores, against one core, in memory" baseline duplex
else
	say "one CPU: what a second brings goes unmeasured"
fi
if have_dpdk; then
	cargo build --quiet --release -p softrdma-perf --features dpdk
	step "softrdma: what it promises, over memif" baseline speed -- "${CARGO_TARGET_DIR:-target}/release/softrdma-perf"
	step "sequential: RDMA against raw frames over memif" \
		perf pair --scheme sequential --fabric memif --op send,write --size 64,64K,1M --with-raw --quiet
	if have dpdk-testpmd; then
		step "raw frames over memif: ours against dpdk-testpmd" bench/testpmd.sh
	else
		say "no dpdk-testpmd (apt-get install dpdk): raw frames go unmeasured"
	fi
	step "softrdma: goodput over a wire that loses and reorders, against kernel TCP over the same" loss
else
	say "no libdpdk $DPDK_VERSION or no libclang: nothing over DPDK is measured"
fi
