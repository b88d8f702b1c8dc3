#!/usr/bin/env bash
# usage: bench/loss.sh [--quick] [--only TEXT] [--seeds COUNT] [--json FILE]
# Goodput over a wire of 1 Gbit/s that loses and reorders: softrdma beside the kernel's CUBIC, and both at once. Root,
# DPDK, `ip` and `ethtool`. Exit status 1: a bar was missed. Ten seeds take half an hour, --quick (three) five minutes.
# Figures mean something on a machine that does nothing else meanwhile.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../tests/common.sh"

((EUID == 0)) || { skip "goodput under loss" "needs root"; exit 0; }
have_dpdk || { skip "goodput under loss" "no libdpdk $DPDK_VERSION or no libclang"; exit 0; }
have ethtool || { skip "goodput under loss" "no ethtool (apt-get install ethtool)"; exit 0; }
say "building ..."
cargo build --quiet --release -p softrdma-perf --features dpdk
cargo build --quiet --release -p softrdma-tests --bin wire
cargo build --quiet --release -p softrdma-bench --bin loss --bin bulk_tcp
built=${CARGO_TARGET_DIR:-target}/release
exec "$built/loss" --programs "$built" "$@"
