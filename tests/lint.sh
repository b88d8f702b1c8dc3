#!/usr/bin/env bash
# usage: tests/lint.sh: formatting, clippy, documentation and shell syntax, every warning an error.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

shell_syntax() {
	local script
	local scripts=(.ci/run bench/*.sh tests/*.sh tests/smc/*.sh tests/smc/*/*.sh tests/smc/*/*/*.sh)
	for script in "${scripts[@]}"; do
		[[ ! -e $script ]] || bash -n "$script" || return
	done
	if have shellcheck; then
		shellcheck --severity=warning .ci/run tests/*.sh tests/smc/*.sh tests/smc/*/*.sh tests/smc/*/*/*.sh
	else
		skip shellcheck "not installed"
	fi
}

lint_rust() { # CARGO-SELECTION...
	# A step is looked at by its last command only: `set -e` does not reach in here.
	cargo clippy --quiet --all-targets "$@" -- -D warnings &&
		RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items "$@"
}

step "shell syntax" shell_syntax
if cargo fmt --version >/dev/null 2>&1; then
	step "rustfmt" cargo fmt --all --check
else
	skip rustfmt "the toolchain lacks it (rustup component add rustfmt)"
fi
if cargo clippy --version >/dev/null 2>&1; then
	step "clippy, rustdoc" lint_rust
	if have_dpdk; then
		step "clippy, rustdoc with DPDK" lint_rust --workspace --features dpdk
	fi
else
	skip "clippy, rustdoc" "the toolchain lacks clippy (rustup component add clippy)"
fi
