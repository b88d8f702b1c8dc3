#!/usr/bin/env bash
# usage: tests/setup.sh [NEED...]
# Installs what the needs lack when run as root on Debian 12; elsewhere it names what to install. Only a missing
# compiler is an error: everything else can be done without, and the callers say what they leave out.
# Needs: dpdk (library, headers, libclang), network (ip), tshark, c++ (libFuzzer), lint (rustfmt, clippy), smc (the
# programs that run over shared memory: redis, nginx, PostgreSQL, ...; none of their services is started).
# SOFTRDMA_NO_INSTALL=1 installs nothing.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

APT=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
DPDK_PACKAGES=(libdpdk-dev dpdk dpdk-dev pkg-config libxdp-dev libbpf-dev)
SERVICE_POLICY=/usr/sbin/policy-rc.d  # asked before a service is started; exit status 101 says no
CLANG_PACKAGES=(libclang-dev clang)

# What the programs of tests/smc/compat and bench/smc.sh need: a command or file, and the package that has it.
SMC_PACKAGES=(
	redis-server:redis-server redis-cli:redis-tools nginx:nginx wrk:wrk memcached:memcached sockperf:sockperf
	iperf3:iperf3 qperf:qperf curl:curl sshd:openssh-server ssh:openssh-client pgbench:postgresql node:nodejs
	qemu-nbd:qemu-utils thrift:thrift-compiler /usr/include/thrift/Thrift.h:libthrift-dev
	/usr/include/boost/version.hpp:libboost-dev c++:g++ python3:python3
	ps:procps taskset:util-linux setpriv:util-linux
)

packages=()  # what to install
without=()   # what is left out while they are missing

lacking() { # WITHOUT PACKAGE...
	without+=("$1")
	packages+=("${@:2}")
}

have_file() { if [[ $1 == /* ]]; then [[ -e $1 ]]; else PATH=$PATH:/usr/sbin have "$1"; fi; } # COMMAND-OR-PATH

look_for_smc_packages() {
	local pair absent=()
	for pair in "${SMC_PACKAGES[@]}"; do
		have_file "${pair%%:*}" || absent+=("${pair#*:}")
	done
	python3 -c 'import test.test_socket' 2>/dev/null || absent+=(libpython3-testsuite)
	((${#absent[@]} == 0)) || lacking "programs over shared memory (${absent[*]})" "${absent[@]}"
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
		smc) look_for_smc_packages ;;
		*) die "unknown need '$need'; known: dpdk network tshark c++ lint smc" ;;
		esac
	done
}

is_debian_12() {
	# shellcheck source=/dev/null
	[[ -r /etc/os-release ]] && (. /etc/os-release && [[ ${ID:-} == debian && ${VERSION_ID:-} == 12 ]])
}

may_install() { ((EUID == 0)) && [[ -z ${SOFTRDMA_NO_INSTALL:-} ]] && is_debian_12; }

install_packages() {
	local log policy=''
	log=$(mktemp)
	say "installing ${packages[*]} ..."
	# Debian starts the services of what it installs; nobody asked for them.
	if [[ ! -e $SERVICE_POLICY ]] && printf '#!/bin/sh\nexit 101\n' >"$SERVICE_POLICY" && chmod 755 "$SERVICE_POLICY"; then
		policy=ours
		trap 'rm -f "$SERVICE_POLICY"' EXIT
	fi
	if ! { "${APT[@]}" update && "${APT[@]}" install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
		tail -n 5 "$log" >&2
		say "apt-get did not succeed; its output is in $log"
	else
		rm -f "$log"
	fi
	[[ -z $policy ]] || rm -f "$SERVICE_POLICY"
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
