#!/usr/bin/env bash
# usage: tests/setup.sh [NEED...]
# Installs what the needs lack when run as root on Debian 12; elsewhere it names what to install. Only a missing
# compiler is an error: everything else can be done without, and the callers say what they leave out.
# Needs: dpdk (library, headers, libclang), network (ip), tshark, c++ (libFuzzer), lint (rustfmt, clippy).
# SOFTRDMA_NO_INSTALL=1 installs nothing.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

APT=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
DPDK_PACKAGES=(libdpdk-dev dpdk dpdk-dev pkg-config libxdp-dev libbpf-dev)
CLANG_PACKAGES=(libclang-dev clang)

packages=()  # what to install
without=()   # what is left out while they are missing

lacking() { # WITHOUT PACKAGE...
	without+=("$1")
	packages+=("${@:2}")
}

look_for_packages() { # NEED...
	local need
	packages=() without=()
	have cc || lacking "any build" gcc libc6-dev
	for need in "$@"; do
		case $need in
		dpdk)
			have_libdpdk || lacking "DPDK (--scheme sequential)" "${DPDK_PACKAGES[@]}"
			have_libclang || lacking "DPDK's bindings" "${CLANG_PACKAGES[@]}"
			;;
		network)
			have ip || lacking "tests in network namespaces" iproute2
			have ethtool || lacking "goodput under loss" ethtool
			;;
		tshark) have tshark || lacking "the dissection of captures" tshark ;;
		c++) have c++ || lacking "fuzzing" g++ ;;
		lint) ;;
		*) die "unknown need '$need'; known: dpdk network tshark c++ lint" ;;
		esac
	done
}

is_debian_12() {
	# shellcheck source=/dev/null
	[[ -r /etc/os-release ]] && (. /etc/os-release && [[ ${ID:-} == debian && ${VERSION_ID:-} == 12 ]])
}

may_install() { ((EUID == 0)) && [[ -z ${SOFTRDMA_NO_INSTALL:-} ]] && is_debian_12; }

install_packages() {
	local log
	log=$(mktemp)
	say "installing ${packages[*]} ..."
	if ! { "${APT[@]}" update && "${APT[@]}" install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
		tail -n 5 "$log" >&2
		say "apt-get did not succeed; its output is in $log"
		return
	fi
	rm -f "$log"
}

# The two components that a minimal toolchain lacks.
rust_components() {
	local component
	for component in fmt clippy; do
		cargo "$component" --version >/dev/null 2>&1 && continue
		[[ $component != fmt ]] || component=rustfmt
		if have rustup && [[ -z ${SOFTRDMA_NO_INSTALL:-} ]]; then
			say "adding the Rust component $component ..."
			rustup --quiet component add "$component" >/dev/null 2>&1 || true
		fi
		cargo "${component#rust}" --version >/dev/null 2>&1 ||
			say "going on without $component (rustup component add $component)"
	done
}

have cargo || die "cargo is not on PATH; install Rust 1.91 or later (https://rustup.rs)"
look_for_packages "$@"
if ((${#packages[@]})) && may_install; then
	install_packages
	look_for_packages "$@"
fi
if ((${#packages[@]})); then
	printf -v list '%s, ' "${without[@]}"
	say "going on without ${list%, }; to have all of it: apt-get install --no-install-recommends ${packages[*]}"
	have cc || die "no C compiler: nothing can be linked"
fi
[[ " $* " != *" lint "* ]] || rust_components
