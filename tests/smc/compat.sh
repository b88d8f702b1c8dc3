#!/usr/bin/env bash
# usage: tests/smc/compat.sh [--library PATH] [--tools DIRECTORY] [--only NAME,...] [--configurations LIST] [--repeat COUNT]
#                            [--short] [--json FILE] [--keep] [--list]
# Runs unmodified programs over loopback, their data checked, with the preload library in both ends, in one of them and
# in neither: one line each (make smc-compat). Exit status 1: something failed.
#   --library PATH         the library to preload; '' for plain runs only; built from this tree if not given
#   --tools DIRECTORY      where softrdma-smc is; beside the library if not given
#   --only NAME,...        these programs only (--list shows the names)
#   --configurations LIST  of none,both,client,server; all if not given
#   --repeat COUNT         each of them so often, or until it fails
#   --short                less of each program, and only those that take a few seconds then
#   --json FILE            one JSON object a line there as well
#   --keep                 keeps all logs; those of failures are kept anyway
# Example: tests/smc/compat.sh --library target/release/libsoftrdma_smc.so --only redis --configurations both
set -euo pipefail
CALLED_FROM=$PWD
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../common.sh"

PROGRAMS=tests/smc/compat    # one file a program
LIBRARY_NAME=libsoftrdma_smc.so

usage() { sed -n '2,/^set -e/{/^#/s/^# \?//p}' "$0"; }

from_here() { # PATH: relative to where we were called from
	if [[ -z $1 || $1 == /* ]]; then echo "$1"; else echo "$CALLED_FROM/$1"; fi
}

library=unset tools=unset only='' configurations=none,both,client,server short='' repeat=1 json='' keep='' list=''
while (($#)); do
	case $1 in
	--library | --tools | --only | --configurations | --repeat | --json)
		(($# > 1)) || die "$1 needs a value"
		case $1 in
		--library) library=$(from_here "$2") ;;
		--tools) tools=$(from_here "$2") ;;
		--only) only=$2 ;;
		--configurations) configurations=$2 ;;
		--repeat) repeat=$2 ;;
		--json) json=$(from_here "$2") ;;
		esac
		shift
		;;
	--short) short=1 ;;
	--keep) keep=1 ;;
	--list) list=1 ;;
	-h | --help) usage && exit ;;
	*) usage >&2 && die "unknown option '$1'" ;;
	esac
	shift
done

# What a program's file says about itself in a line '# NAME: VALUE'.
header() { sed -n "s/^# $2: //p;/^[^#]/q" "$PROGRAMS/$1.sh"; } # PROGRAM NAME

programs() {
	local file
	for file in "$PROGRAMS"/*.sh; do basename "$file" .sh; done
}

is_among() { [[ ,$2, == *,$1,* ]]; } # WORD COMMA-SEPARATED-LIST

# A word that names nothing would run nothing, and pass.
check_words() { # WHAT LIST KNOWN...
	local word words
	IFS=, read -ra words <<<"$2"
	for word in "${words[@]}"; do
		[[ " ${*:3} " == *" $word "* ]] || die "no $1 '$word'; known: ${*:3}"
	done
}

mapfile -t known < <(programs)
check_words program "$only" "${known[@]}"
check_words configuration "$configurations" none both client server
if [[ -n $list ]]; then
	for program in "${known[@]}"; do
		printf '%-12s %s%s\n' "$program" "$(header "$program" what)" \
			"$([[ $(header "$program" short) != yes ]] || echo ' (in --short too)')"
	done
	exit
fi

profile=$(if [[ -n $short ]]; then echo dev; else echo release; fi)
built=${CARGO_TARGET_DIR:-target}/$(if [[ -n $short ]]; then echo debug; else echo release; fi)
[[ $built == /* ]] || built=$ROOT/$built

# The library, the tools and the programs of ours among those that are run.
build() {
	if [[ $library == unset && -e bins/smc-preload/Cargo.toml ]]; then
		cargo build --quiet --profile "$profile" -p softrdma-smc-preload
		cargo build --quiet --profile "$profile" -p softrdma-smc-tools
		library=$built/$LIBRARY_NAME
	fi
	[[ -n $only ]] && ! is_among tokio "$only" || cargo build --quiet --profile "$profile" -p softrdma-tests --bin tokio_echo
}

build
if [[ $library == unset ]]; then
	say "this tree has no preload library: plain runs only"
	library=''
fi
if [[ -n $library ]]; then
	[[ -r $library ]] || die "cannot read the library $library"
	[[ $tools != unset ]] || tools=$(dirname -- "$library")
else
	configurations=none
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/smc-compat.XXXXXX")
chmod 755 "$work"
# Programs of other users load it too, and a build meanwhile must not change it.
if [[ -n $library ]]; then
	install -m 755 "$library" "$work/$LIBRARY_NAME"
	library=$work/$LIBRARY_NAME
fi
smcd=''
if [[ -n $library && ! -x $tools/softrdma-smc ]]; then
	say "no softrdma-smc in $tools: nobody checks that connections are accelerated"
elif [[ -n $library ]]; then
	install -m 755 "$tools/softrdma-smc" "$work/smcd"
	smcd=$work/smcd
fi
[[ -z $json ]] || : >"$json"
have python3 || die "no python3: most checks need it (tests/setup.sh smc)"
python=$(python3 -c 'import sys; print(sys.executable)')

# What a program started and did not end; all of it stays in the process group that `timeout` made.
left_behind() { ps -eo pgid=,pid=,comm= | awk -v group="$1" '$1 == group { print $2, $3 }'; } # GROUP

end_left_behind() { # GROUP
	local pid
	for pid in $(left_behind "$1" | cut -d' ' -f1); do kill -KILL "$pid" 2>/dev/null || true; done
}

running='' # the process group of the program that is running
interrupted() {
	trap - EXIT
	[[ -z $running ]] || { kill -TERM "$running" 2>/dev/null || true; wait "$running" || true; }
	say "interrupted; logs: $work"
	exit 130
}
trap interrupted INT TERM

verdict='' note=''
run() { # PROGRAM CONFIGURATION: sets verdict and note
	local directory=$work/$1-$2 status=0 left limit
	limit=$(header "$1" seconds)
	limit=${limit:-$(if [[ -n $short ]]; then echo 60; else echo 600; fi)}
	mkdir -m 755 "$directory"
	CONFIGURATION=$2 LIBRARY=$library SMCD=$smcd SCRATCH=$directory SHORT=$short BUILT=$built PYTHON=$python \
		timeout --kill-after=20 "$limit" bash "$PROGRAMS/$1.sh" </dev/null >"$directory.log" 2>&1 &
	running=$!
	wait "$running" || status=$?
	left=$(left_behind "$running")
	end_left_behind "$running"
	running='' note=''
	case $status in
	0) verdict=ok ;;
	77) verdict=skipped note=$(tail -n 1 "$directory.log") ;;
	124 | 137) verdict=FAILED note="not done after $limit s" ;;
	*) verdict=FAILED note=$(grep '^FAILED' "$directory.log" | head -n 1) ;;
	esac
	if [[ $verdict == ok && ! -e $directory/finished ]]; then
		verdict=FAILED note="it ended before its checks did"
	elif [[ $verdict == ok && -n $left ]]; then
		verdict=FAILED note="left behind: ${left//$'\n'/, }"
	elif [[ $verdict == ok && -s $directory/accelerated ]]; then
		note="accelerated: $(<"$directory/accelerated") connections"
	fi
	[[ $verdict != FAILED ]] || note+="; log: $directory.log, logs of what it ran: $directory"
	[[ -n $keep || $verdict == FAILED ]] || rm -rf "$directory" "$directory.log"
}

report() { # PROGRAM CONFIGURATION SECONDS
	printf '%-12s %-7s %-8s %6.1f s  %s\n' "$1" "$2" "$verdict" "$3" "$note"
	[[ $verdict != skipped ]] || skip "$1 ($2)" "${note#skipped: }" 2>/dev/null
	[[ -z $json ]] || "$python" - "$@" "$verdict" "$note" >>"$json" <<'END'
import json, sys
names = ("program", "configuration", "seconds", "verdict", "note")
row = dict(zip(names, sys.argv[1:]))
row["seconds"] = float(row["seconds"])
print(json.dumps(row))
END
}

failures=0 runs=0
for program in "${known[@]}"; do
	[[ -z $only ]] || is_among "$program" "$only" || continue
	[[ -z $short || -n $only || $(header "$program" short) == yes ]] || continue
	sensible=$(header "$program" configurations)
	for configuration in none both client server; do
		is_among "$configuration" "$configurations" || continue
		is_among "$configuration" "${sensible:-none,both,client,server}" || continue
		for ((turn = 0; turn < repeat; turn++)); do
			began=$EPOCHREALTIME
			run "$program" "$configuration"
			report "$program" "$configuration" "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')"
			runs=$((runs + 1))
			[[ $verdict != FAILED ]] || { failures=$((failures + 1)); break; }
		done
	done
done
if [[ -n $keep ]]; then
	say "logs: $work"
elif ((failures == 0)); then
	rm -rf "$work"
fi
((failures == 0)) || die "$failures of $runs runs failed"
((runs > 0)) || die "nothing was run"
