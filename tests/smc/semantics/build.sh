#!/usr/bin/env bash
# usage: tests/smc/semantics/build.sh FILE: compiles the scenarios into the program FILE. Fortified, so that the checked
# forms of the calls are taken where the compiler can.
set -euo pipefail
cd "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/" || exit 1
exec "${CC:-cc}" -std=gnu11 -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -Wall -Wextra -Wno-missing-field-initializers \
	-pthread -o "${1:?usage: build.sh FILE}" ./*.c
