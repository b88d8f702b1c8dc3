#!/usr/bin/env bash
# usage: tests/smc/compat/thrift/build.sh DIRECTORY: makes thrift_server and thrift_client there, if they are older than their
# sources. Needs the thrift compiler, its C++ library and a C++ compiler; exit status 77 without.
set -euo pipefail
sources=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
directory=${1:?usage: build.sh DIRECTORY}
for command in thrift c++; do
	command -v "$command" >/dev/null || { echo "no $command (tests/setup.sh smc)"; exit 77; }
done
for header in thrift/Thrift.h boost/version.hpp; do
	[[ -e /usr/include/$header ]] || { echo "no $header (tests/setup.sh smc)"; exit 77; }
done

mkdir -p "$directory"
cd "$directory"
newest=$(find "$sources" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
[[ ! thrift_server -nt $newest || ! thrift_client -nt $newest ]] || exit 0

# Beside the old ones until they are complete: another run may want them meanwhile.
building=$(mktemp -d building.XXXXXX)
trap 'rm -rf "$building"' EXIT
thrift --gen cpp:no_skeleton -out "$building" "$sources/exchange.thrift"
compile() { c++ -std=c++17 -O2 -I "$building" "$@"; }
compile -c -o "$building/Exchange.o" "$building/Exchange.cpp" &
exchange=$!
compile -c -o "$building/exchange_types.o" "$building/exchange_types.cpp"
wait "$exchange"
for program in server client; do
	compile -o "$building/thrift_$program" "$sources/$program.cpp" "$building"/*.o -lthrift -pthread
	mv "$building/thrift_$program" .
done
