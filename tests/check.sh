#!/usr/bin/env bash
# usage: tests/check.sh: everything that must hold before a change goes in (make test).
# Where something cannot run (no root, no DPDK, no tshark) the rest runs, and the end names what was left out.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

SOFTRDMA_SKIPPED=$(mktemp)  # what cannot run here adds a line (skip in common.sh, softrdma_tests::skip)
export SOFTRDMA_SKIPPED
trap 'rm -f "$SOFTRDMA_SKIPPED"' EXIT

started=$SECONDS
tests/lint.sh
step "cargo test" cargo test
if have_dpdk; then
	# The two crates below the ports have no such feature and were tested above.
	step "cargo test with DPDK" cargo test --workspace \
		--exclude softrdma-stack --exclude softrdma-mpa-ddp-rdmap --features dpdk
else
	skip "everything over DPDK ports" "no libdpdk $DPDK_VERSION or no libclang (tests/setup.sh dpdk)"
fi

printf '\nmake test: passed in %s s' $((SECONDS - started))
if [[ -s $SOFTRDMA_SKIPPED ]]; then
	printf '; not run here:\n'
	sort -u "$SOFTRDMA_SKIPPED" | sed 's/^/  /'
else
	printf ', nothing left out\n'
fi
