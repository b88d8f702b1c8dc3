#!/usr/bin/env bash
# usage: tests/fuzz.sh [SECONDS [TARGET...]]: runs each fuzz target (all unless named) for so many seconds (make fuzz).
# SECONDS: else $SOFTRDMA_FUZZ_SECONDS, else 60. One line a target; an input that makes one fail is kept and named, and
# the exit status is 1. What was learned stays in fuzz-target/corpus for the next run.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

WORKSPACES=(mpa-ddp-rdmap/fuzz smc/fuzz)
OUT=fuzz-target
TRIPLE=x86_64-unknown-linux-gnu

seconds=${1:-${SOFTRDMA_FUZZ_SECONDS:-60}}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "'$seconds' is no number of seconds; usage: tests/fuzz.sh [SECONDS [TARGET...]]"
shift $(($# > 0))
known=()
declare -A workspace_of
for workspace in "${WORKSPACES[@]}"; do
	while read -r target; do
		known+=("$target")
		workspace_of[$target]=$workspace
	done < <(sed -n 's/^path = "targets\/\(.*\)\.rs"/\1/p' "$workspace/Cargo.toml")
done
targets=("${@:-${known[@]}}")
for target in "${targets[@]}"; do
	[[ " ${known[*]} " == *" $target "* ]] || die "no fuzz target '$target'; there are: ${known[*]}"
done

# What `cargo fuzz` would pass, less the address sanitizer: that one needs a nightly compiler, and the fuzzed crates forbid
# unsafe code (shared memory is the exception, and what is wrong there shows in assertions). Coverage guidance works on the
# stable compiler.
build() { # WORKSPACE TARGET...
	local workspace=$1
	shift
	local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
	coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
	coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
	# --target keeps the flags away from build scripts.
	RUSTFLAGS="--cfg fuzzing $coverage" cargo build --quiet --release "${@/#/--bin=}" \
		--manifest-path "$workspace/Cargo.toml" --target "$TRIPLE" --target-dir "$OUT"
}

# Writes the seeds of TARGET to DIRECTORY: settings as the target reads them, and bytes of a real peer behind them.
seed() { # TARGET DIRECTORY
	local capture file name plain checked bits
	case $1 in
	configuration)
		for file in configs/*.toml; do [[ $file == */smc-* ]] || cp "$file" "$2"; done
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
	clc)
		seed_clc "$2"
		;;
	cdc)
		# A ring of 16 KiB: 256 bytes written and 16 read, then 512 written, the last one urgent, and sending is done.
		hex "00 fe2c0001 00000007 00000000 00000100 00000000 00000010 0000 $(zeros 18)
			fe2c0002 00000007 00000000 00000200 00000000 00000100 2080 $(zeros 18)" >"$2/messages"
		hex "00 0000000001000000 0001000000008040 fe00000000000000 0000000001000000 0000000000100080 $(zeros 8)" >"$2/words"
		;;
	policy)
		cp configs/smc-*.toml "$2"
		printf 'rendezvous_directory = "/run/smc"\0SOFTRDMA_SMC_ISOLATION_DOMAIN=web\0SOFTRDMA_SMC_RING_BYTES=64K\0' >"$2/values"
		;;
	exchange)
		# Each with its header; the last two name an arena, and one of them brings its memory.
		local clc="e2d4c3d9 04001c18 1234020000abcdef 03070000 00000000 e2d4c3d9"
		hex "7352736d 01 00 001c $(zeros 16) $clc" >"$2/decline"
		clc="e2d4c3c4 02003019 0102030405060708 1112131415161718 09 20 0000 21222324 $(zeros 12) e2d4c3c4"
		hex "7352736d 01 01 0030 3132333435363738 00004000 00010000 $clc" >"$2/accept"
		hex "7352736d 01 03 0030 3132333435363738 00004000 00010000 $clc" >"$2/accept_first"
		;;
	rings)
		# Everything once; then the peer writes its two words, and anywhere.
		hex "01 0100 $(zeros 8)  07 0000 $(zeros 8)  03 0100 $(zeros 8)  05 0010 $(zeros 8)
			09 0080 $(zeros 8)  0b 0000 $(zeros 8)  0d 0000 $(zeros 8)  0f 0004 $(zeros 8)" >"$2/everything"
		hex "01 4000 $(zeros 8)  00 0000 0000000010000080  00 0001 0000000001000000  07 0000 $(zeros 8)
			03 0800 $(zeros 8)  00 0000 0001000008000040  00 0842 ffffffffffffffff  03 4000 $(zeros 8)" >"$2/hostile"
		;;
	esac
}

# The bytes that hexadecimal DIGITS stand for; blanks only separate.
hex() { # DIGITS
	# shellcheck disable=SC2059 # the format is made of escapes only
	printf "$(tr -d ' \t\n' <<<"$1" | sed 's/../\\x&/g')"
}

zeros() { printf '%0*d' $(($1 * 2)) 0; } # COUNT: so many zero bytes as digits

# One message of each kind, and a proposal of version 2.
seed_clc() { # DIRECTORY
	local peer=1234020000abcdef mac=020000abcdef gid=00000000000000000000ffffc0000201 end=e2d4c3d9
	local shared="0102030405060708 0000 0000 $(zeros 28)" subnet='7f000000 08 0000 00'
	hex "$end 01005c13 $peer $gid $mac 0028 $shared $subnet $end" >"$1/proposal"
	hex "$end 01003410 $peer $gid $mac 0000 $subnet $end" >"$1/proposal_short"
	hex "$end 01006d10 $peer $gid $mac 0028 $shared 00000000 00 0000 01 $gid 40 $end" >"$1/proposal_ipv6"
	hex "$end 0100e82f $peer $gid $mac 0028 0102030405060708 ffff 0024 $(zeros 28) $subnet \
		01 02 00 11 0000 0040 $(zeros 32) $(zeros 32)  $(zeros 48) $(zeros 20) $end" >"$1/proposal_version_2"
	hex "$end 02004418 $peer $gid $mac 0a0b0c 11223344 05 55667788 23 00 00007fffdeadb000 00 010203 $end" >"$1/accept_rdma"
	hex "e2d4c3c4 02003019 0102030405060708 1112131415161718 09 50 0000 21222324 $(zeros 12) e2d4c3c4" >"$1/accept_shared"
	hex "e2d4c3c4 03003011 0102030405060708 1112131415161718 09 50 0000 21222324 $(zeros 12) e2d4c3c4" >"$1/confirm_shared"
	hex "$end 04001c18 $peer 03070000 00000000 $end" >"$1/decline"
}

# Runs TARGET and says in one line what came of it.
run() { # TARGET
	local target=$1 corpus=$OUT/corpus/$1 seeds=$OUT/seeds/$1 artifacts=$OUT/artifacts/$1 log=$OUT/$1.log status=0
	mkdir -p "$corpus" "$seeds" "$artifacts"
	seed "$target" "$seeds"
	local options=()
	if [[ $target == configuration || $target == policy ]]; then
		sed -n 's/^#\{0,1\}:\{0,1\} *\([a-z_]*\) *=.*/"\1"/p' configs/*.toml | sort -u >"$OUT/toml.dict"
		options+=(-dict="$OUT/toml.dict")
	fi
	if [[ $target == configuration ]]; then options+=(-only_ascii=1); fi
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

for workspace in "${WORKSPACES[@]}"; do
	chosen=()
	for target in "${targets[@]}"; do
		if [[ ${workspace_of[$target]} == "$workspace" ]]; then chosen+=("$target"); fi
	done
	((${#chosen[@]} == 0)) || build "$workspace" "${chosen[@]}" ||
		die "the fuzz targets do not build (libFuzzer needs a C++ compiler: apt-get install g++)"
done
failed=0
for target in "${targets[@]}"; do
	run "$target" || failed=1
done
exit "$failed"
