#!/usr/bin/env bash
# usage: bench/smc.sh [--library PATH] [--only TEXT] [--rounds COUNT] [--seconds SECONDS] [--json] [--strict] [--list]
# What shared memory brings to unmodified programs beside TCP loopback, in turns (make smc-bench). The library is built unless
# one is named; --library '' measures plain against plain. Figures mean something on a machine that does nothing else meanwhile.
set -euo pipefail
CALLED_FROM=$PWD
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../tests/common.sh"

built=${CARGO_TARGET_DIR:-target}/release
library=unset
arguments=()
while (($#)); do
	case $1 in
	--library)
		(($# > 1)) || die "--library needs a value"
		library=$2
		[[ -z $library || $library == /* ]] || library=$CALLED_FROM/$library
		shift
		;;
	*) arguments+=("$1") ;;
	esac
	shift
done

say "building ..."
cargo build --quiet --release -p softrdma-bench --bin smc
if [[ $library == unset && -e bins/smc-preload/Cargo.toml ]]; then
	cargo build --quiet --release -p softrdma-smc-preload
	library=$built/libsoftrdma_smc.so
elif [[ $library == unset ]]; then
	say "this tree has no preload library: plain runs only"
	library=''
fi
thrift=()
if reason=$(tests/smc/compat/thrift/build.sh "$built/smc-thrift" 2>&1); then
	thrift=(--thrift "$built/smc-thrift")
else
	say "no thrift pair: $(tail -n 1 <<<"$reason")"
fi
exec "$built/smc" table ${library:+--library "$library"} "${thrift[@]}" "${arguments[@]}"
