#!/usr/bin/env bash
# usage: tests/smc/semantics/stress.sh [-l LIBRARY] [-s stress|kill-rounds] [-n SEEDS] [-f FIRST] [-k ROUNDS] [-j JOBS]
#                                      [-e NAME=VALUE]...
# The stress of both kinds with many seeds, both ends under LIBRARY: operations drawn by seed on twelve connections,
# every byte checked; and peers that are killed at random moments, ROUNDS (50) for each seed. A finding prints its seed.
# Without -e connections are moved after 4 transfers.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../../common.sh"

library='' scenarios=(stress kill-rounds) seeds=100 first=1 rounds=50 jobs=2
settings=(SOFTRDMA_SMC_UPGRADE_AFTER=4)
while getopts l:s:n:f:k:j:e:h option; do
	case $option in
	l) library=$(cd "$OLDPWD" && readlink -f -- "$OPTARG") ;;
	s) scenarios=("$OPTARG") ;;
	n) seeds=$OPTARG ;;
	f) first=$OPTARG ;;
	k) rounds=$OPTARG ;;
	j) jobs=$OPTARG ;;
	e) settings+=("$OPTARG") ;;
	*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
	esac
done
[[ -z $library || -r $library ]] || die "no library $library"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests/smc/semantics/build.sh "$work/semantics"

one() { # PROGRAM LIBRARY SCENARIO SEED: quiet if it went well
	local output
	output=$(SEMANTICS_SEED=$4 "$1" run "$3" --limit 120 ${2:+--near-library "$2" --far-library "$2"} 2>&1) || true
	if grep -qE 'CANNOT GO ON|TOO LONG|ended by|ended with [1-9]' <<<"$output"; then
		printf 'FAILED %s, seed %s\n' "$3" "$4"
		grep -v '^#' <<<"$output" | sed 's/^/    /'
		return 1
	fi
}
export -f one

failed=0
for scenario in "${scenarios[@]}"; do
	seq "$first" $((first + seeds - 1)) |
		env "${settings[@]}" SEMANTICS_ROUNDS="$rounds" xargs -P "$jobs" -I{} \
			bash -c "one '$work/semantics' '$library' $scenario {}" || failed=1
	say "$scenario: seeds $first to $((first + seeds - 1)) done"
done
exit $failed
