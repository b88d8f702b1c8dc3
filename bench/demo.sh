#!/usr/bin/env bash
# usage: bench/demo.sh: Write and Send over own TCP and smoltcp's on DPDK memif and over kernel TCP, side by side with
# what each fabric moves without RDMA (make demo). Needs neither root nor hugepages.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../tests/common.sh"

say "building ..."
# shellcheck disable=SC2046 # no word or two
cargo build --quiet --release -p softrdma-perf -p softrdma-bench --bin softrdma-perf --bin demo $(dpdk_features)
have_dpdk || say "no libdpdk $DPDK_VERSION or no libclang: kernel TCP only"
built=${CARGO_TARGET_DIR:-target}/release
exec "$built/demo" "$built/softrdma-perf" $(have_dpdk || echo --without-dpdk)
