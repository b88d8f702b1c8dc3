#!/usr/bin/env bash
# usage: tests/smc/semantics/run.sh [-l LIBRARY] [-s SCENARIO] [-e NAME=VALUE]... [-w ROUNDS] [-6] [-r] [-1 near|far]
#                                   [-n TIMES] [-T SECONDS] [-t] [-p] [-L]
# Runs scenarios (all, or those whose name matches the pattern SCENARIO) plain and under LIBRARY and shows where their
# transcripts differ; a scenario with a file in deviations/ is compared with that. Without a library: plain twice, which
# shows whether a scenario is steady.
#   -e  sets a variable of the environment for the run under the library (SOFTRDMA_SMC_UPGRADE_AFTER=4)
#   -w  round trips before the scenario begins (32)     -6  over ::1         -r  `near` accepts and `far` connects
#   -1  preloads in that end only                       -n  repeats          -t  traces the run under the library
#   -T  when a run has taken too long (20)             -L  lists the scenarios
#   -p  prints the transcript under LIBRARY: what a file in deviations/ has below its reason
# Exit status: 0 if all are equal.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../../common.sh"

HERE=tests/smc/semantics
library='' pattern='*' times=1 only='' list='' print=''
settings=(env) options=() traced=()
while getopts l:s:e:w:6r1:n:T:tpLh option; do
	case $option in
	l) library=$(cd "$OLDPWD" && readlink -f -- "$OPTARG") ;;
	s) pattern=$OPTARG ;;
	e) settings+=("$OPTARG") ;;
	w) options+=(--warm "$OPTARG") ;;
	6) options+=(--family 6) ;;
	r) options+=(--swap) ;;
	1) only=$OPTARG ;;
	n) times=$OPTARG ;;
	T) options+=(--limit "$OPTARG") ;;
	t) traced=(--trace) ;;
	p) print=1 ;;
	L) list=1 ;;
	*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
	esac
done
[[ -z $library || -r $library ]] || die "no library $library"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=$work/semantics
"$HERE/build.sh" "$program"
if [[ -n $list ]]; then "$program" list; exit; fi

preload=()
if [[ -n $library && $only != far ]]; then preload+=(--near-library "$library"); fi
if [[ -n $library && $only != near ]]; then preload+=(--far-library "$library"); fi

# What is to be compared: remarks are not.
transcript() { grep -v '^#' "$1"; }

compare() { # SCENARIO
	"$program" run "$1" "${options[@]}" >"$work/plain" || true
	"${settings[@]}" "$program" run "$1" "${options[@]}" "${traced[@]}" "${preload[@]}" >"$work/other" || true
	if [[ -n $print ]]; then
		transcript "$work/other"
		return
	fi
	local deviation=$HERE/deviations/$1.txt
	if [[ -n $library && -z $only && -e $deviation ]]; then
		cp "$deviation" "$work/plain"
	fi
	if diff -u --label plain --label "${library:-plain again}" \
		<(transcript "$work/plain") <(transcript "$work/other") >"$work/diff"; then
		printf 'same       %s%s\n' "$1" "$(sed -n 's/^# \(.*\): arenas: 1$/, moved in \1/p' "$work/other" | paste -sd '')"
		return
	fi
	printf 'DIFFERENT  %s\n' "$1"
	sed 's/^/    /' "$work/diff"
	return 1
}

different=0
for ((time = 0; time < times; time++)); do
	while read -r scenario _; do
		# shellcheck disable=SC2053 # a pattern is meant
		[[ $scenario == $pattern ]] || continue
		compare "$scenario" || different=1
	done < <("$program" list)
done
exit $different
