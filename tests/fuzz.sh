#!/usr/bin/env bash
# usage: tests/fuzz.sh [SECONDS [TARGET...]]: runs each fuzz target (all unless named) for so many seconds (make fuzz).
# SECONDS: else $SOFTRDMA_FUZZ_SECONDS, else 60. One line a target; an input that makes one fail is kept and named, and
# the exit status is 1. What was learned stays in fuzz-target/corpus for the next run.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

WORKSPACE=mpa-ddp-rdmap/fuzz
OUT=fuzz-target
TRIPLE=x86_64-unknown-linux-gnu

seconds=${1:-${SOFTRDMA_FUZZ_SECONDS:-60}}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "'$seconds' is no number of seconds; usage: tests/fuzz.sh [SECONDS [TARGET...]]"
shift $(($# > 0))
mapfile -t known < <(sed -n 's/^path = "targets\/\(.*\)\.rs"/\1/p' "$WORKSPACE/Cargo.toml")
targets=("${@:-${known[@]}}")
for target in "${targets[@]}"; do
	[[ " ${known[*]} " == *" $target "* ]] || die "no fuzz target '$target'; there are: ${known[*]}"
done

# What `cargo fuzz` would pass, less the address sanitizer: that one needs a nightly compiler, and the fuzzed crates forbid
# unsafe code. Coverage guidance works on the stable compiler.
build() {
	local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
	coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
	coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
	# --target keeps the flags away from build scripts.
	RUSTFLAGS="--cfg fuzzing $coverage" cargo build --quiet --release "${targets[@]/#/--bin=}" \
		--manifest-path "$WORKSPACE/Cargo.toml" --target "$TRIPLE" --target-dir "$OUT"
}

# Writes the seeds of TARGET to DIRECTORY: settings as the target reads them, and bytes of a real peer behind them.
seed() { # TARGET DIRECTORY
	local capture name plain checked bits
	case $1 in
	configuration)
		cp configs/*.toml "$2"
		;;
	handshake)
		for capture in tests/captures/mpa_req_*.bin; do
			name=$(basename "$capture" .bin)
			{ printf '\037\0\010\0\004\0\010\0\004\0\003\021\0\0\0\0\0\0'; cat "$capture"; } >"$2/$name"
			{ printf '\003\0\010\0\004\0\010\0\004\0\0\0\0\0\0\0\0\0'; sed 's/MPA ID Req/MPA ID Rep/' "$capture"; } >"$2/${name}_reply"
		done
		;;
	inbound)
		# A receiver of siw's streams, without CRC as it was and with; then one that gets one message of each kind.
		for capture in initiator:001:013 responder:021:033; do
			IFS=: read -r name plain checked <<<"$capture"
			for bits in "$plain" "$checked"; do
				{ printf "\\$bits"'\010\0\007\007\377\0\0\377\377\0\0\0\0\0\0\0\021'; cat "tests/captures/rping2_$name.bin"; } >"$2/$name-$bits"
			done
		done
		{
			printf '\052\010\0\007\007\377\002\002\377\377\0\0\0\0\0\0\0\021'
			printf '\003\0\020A\0\003\001\020A\0\003\0\020A\0\006\0\020A\002\0\0\020B\0\0\010\011\0D\0'
			printf '\001\0\001\0\0\0\040\003\0\0\0\012\0\0\007\0\0\020\001\0\001\0\0'
			printf '\002\0\040C\001\0\0\013\0\001E\0\007\0%052d\0' 0
		} >"$2/messages"
		;;
	terminate)
		printf '\020\0\0\0' >"$2/local"
		printf '\021\001\300\0\0\100\101\103\0\0\0\0\0\0\0\0\0\0\0\001\0\0\0\0' >"$2/untagged"
		printf '\001\001\340\0\0\056\101\101\0\0\0\0\0\0\0\001\0\0\0\001\0\0\0\0%028d' 0 >"$2/read"
		;;
	esac
}

# Runs TARGET and says in one line what came of it.
run() { # TARGET
	local target=$1 corpus=$OUT/corpus/$1 seeds=$OUT/seeds/$1 artifacts=$OUT/artifacts/$1 log=$OUT/$1.log status=0
	mkdir -p "$corpus" "$seeds" "$artifacts"
	seed "$target" "$seeds"
	local options=()
	if [[ $target == configuration ]]; then
		sed -n 's/^#\{0,1\} *\([a-z_]*\) *=.*/"\1"/p' configs/*.toml | sort -u >"$OUT/toml.dict"
		options+=(-dict="$OUT/toml.dict" -only_ascii=1)
	fi
	"$OUT/$TRIPLE/release/$target" "$corpus" "$seeds" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
		-rss_limit_mb=1024 -artifact_prefix="$artifacts/" -print_final_stats=1 "${options[@]}" >"$log" 2>&1 || status=$?
	local runs features
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	features=$(sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	if ((status == 0)); then
		echo "$target: nothing found in ${runs:-?} runs, ${features:-?} features reached"
		return
	fi
	local artifact
	artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
	echo "$target: FAILED after ${runs:-?} runs: $(grep -m 1 -A 1 -E "panicked at|ERROR: " "$log" | tr '\n' ' ' || echo "exit status $status");" \
		"input ${artifact:-unknown}, output $log, again with: $OUT/$TRIPLE/release/$target ${artifact:-INPUT}"
	return 1
}

build || die "the fuzz targets do not build (libFuzzer needs a C++ compiler: apt-get install g++)"
failed=0
for target in "${targets[@]}"; do
	run "$target" || failed=1
done
exit "$failed"
