# Shared by the scripts of this directory and of bench/; sourced, never run.
# shellcheck shell=bash

ROOT=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
cd "$ROOT" || exit 1

say() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# The oldest DPDK that dpdk-glue/sys builds against.
DPDK_VERSION=22.11

have_libdpdk() { have pkg-config && pkg-config --exists "libdpdk >= $DPDK_VERSION"; }

# bindgen loads libclang at build time; these are the places where it looks.
have_libclang() {
	[[ -n $({
		compgen -G "${LIBCLANG_PATH:-/nonexistent}/libclang*.so*"
		compgen -G '/usr/lib/llvm-*/lib/libclang*.so*'
		ldconfig -p 2>/dev/null
	} | libclangs) ]]
}

# Those lines of the input that name it. libclang-cpp, which comes with LLVM as well, is another library.
libclangs() { grep 'libclang[^/ ]*\.so' | grep -v 'libclang-cpp'; }

have_dpdk() { have_libdpdk && have_libclang; }

# What `cargo` needs to reach the ports of DPDK where it is installed, and nothing where it is not.
dpdk_features() { if have_dpdk; then echo --features dpdk; fi; }

# Runs COMMAND... as one step: a heading, its output, and the seconds that it took.
step() { # TITLE COMMAND...
	local title=$1 started=$SECONDS
	shift
	printf '\n== %s\n' "$title"
	"$@" || die "$title: failed (exit status $?)"
	printf '== %s: ok, %s s\n' "$title" $((SECONDS - started))
}

# Says that WHAT does not run here; under check.sh the end of the run says it again.
skip() { # WHAT WHY
	say "skipped: $1: $2"
	if [[ -n ${SOFTRDMA_SKIPPED:-} ]]; then echo "$1: $2" >>"$SOFTRDMA_SKIPPED"; fi
}
