#!/usr/bin/env bash
# usage: tests/soak.sh: the simulation of two hosts over bad wires, with many seeds.
# SOFTRDMA_SEEDS (20000) says how many, SOFTRDMA_FIRST_SEED (0) from where on; a finding names its seed.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

export SOFTRDMA_SEEDS=${SOFTRDMA_SEEDS:-20000}
step "simulation, $SOFTRDMA_SEEDS seeds" cargo test --release -p softrdma-tests --test simulation -- --nocapture
