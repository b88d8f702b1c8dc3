#!/usr/bin/env bash
# usage: tests/interop.sh: against the Linux kernel's own iWARP (siw), in a virtual machine that tests/siw builds.
# Both ways (our client to `rping -s`, `rping -c` to our server), over kernel TCP and over smoltcp on an AF_PACKET
# port, CRC asked for and not, client-server and peer-to-peer setup. rping moves each byte by a Read and back by a
# Write and compares; so does ours. The whole traffic is then dissected by tshark where there is one.
# One line a case; the exit status says whether all passed. Its namespace and guest are taken away whatever happens.
# SOFTRDMA_PROGRAM names a `softrdma` to test instead of building one; SOFTRDMA_INTEROP_ROUNDS (20) says how many rounds.
# SIW_GUEST_ACCEL=kvm speeds the guest up where nested virtualisation works; SIW_GUEST_* as tests/siw/README.md says.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

GUEST=tests/siw/siw-guest
GUEST_ADDRESS=10.77.0.11
ROUNDS=${SOFTRDMA_INTEROP_ROUNDS:-20}
BYTES=4000      # of each message: three packets
CASE_SECONDS=60 # a case that takes longer has failed

((EUID == 0)) || die "needs root: it makes a network namespace and boots a virtual machine"
have_dpdk || say "no libdpdk $DPDK_VERSION or no libclang: going on without DPDK ports"

NAMESPACE=softrdma-interop-$$
export SIW_GUEST_NETNS=$NAMESPACE
# On a busy machine an emulated timer can be so late that the guest's kernel takes it for broken and stops.
export SIW_GUEST_APPEND="no_timer_check ${SIW_GUEST_APPEND:-}"
WORK=$(mktemp -d)
server=  # pid of the program under test while it serves
capture= # pid of dumpcap
failed=0
port=7200

clean_up() {
	trap - EXIT
	[[ -z $server ]] || kill "$server" 2>/dev/null || true
	[[ -z $capture ]] || kill "$capture" 2>/dev/null || true
	wait 2>/dev/null || true
	"$GUEST" down "$NAMESPACE" || true
	rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- the program under test -----------------------------------------------------------------------

SOFTRDMA=$WORK/softrdma

build() {
	if [[ -n ${SOFTRDMA_PROGRAM:-} ]]; then
		cp "$SOFTRDMA_PROGRAM" "$SOFTRDMA"
		return
	fi
	# shellcheck disable=SC2046 # no word or two
	cargo build --quiet --release -p softrdma $(dpdk_features)
	cp "${CARGO_TARGET_DIR:-target}/release/softrdma" "$SOFTRDMA"
}

address_of() { # SCHEME: the address that our end has on the guest's network
	case $1 in
	kernel-socket) echo 10.77.0.1 ;; # the bridge's
	*) echo 10.77.0.20 ;;
	esac
}

# The device of a case, as TOML. siw overlooks an FPDU that comes right behind its reply (tests/siw/README.md).
configure() { # SCHEME CRC SETUP
	local ready='[]'
	[[ $3 != peer-to-peer ]] || ready='["write", "read"]'
	printf 'scheme = "%s"\ncrc = %s\n' "$1" "$2"
	[[ $1 == kernel-socket ]] || printf 'addresses = ["%s/24"]\n' "$(address_of "$1")"
	[[ $1 != kernel-socket ]] || printf 'listen_addresses = ["%s"]\n' "$(address_of "$1")"
	printf '[handshake]\nready_to_receive = %s\n[timing]\nfirst_fpdu_delay_ms = 50\n' "$ready"
	[[ $1 == kernel-socket ]] || printf '[port.device.af_packet]\ninterface = "dveth0"\n[eal]\nhuge_pages = "off"\n'
}

inside() { "$GUEST" exec timeout -k 2 "$CASE_SECONDS" "$@"; }
guest() { SIW_GUEST_TIMEOUT=$CASE_SECONDS "$GUEST" run "$*"; }

# --- cases ----------------------------------------------------------------------------------------

our_client() { # CONFIG
	guest "rping -s -a $GUEST_ADDRESS -p $port -C $ROUNDS -S $BYTES -V >/tmp/rping.log 2>&1 & echo \$! >/tmp/rping.pid"
	guest "for i in \$(seq 50); do ss -tln 2>/dev/null | grep -q ':$port ' && break; sleep 0.1; done" || true
	sleep 0.5
	inside "$SOFTRDMA" ping "$GUEST_ADDRESS:$port" --config "$1" --count "$ROUNDS" --size "$BYTES"
	local status=$?
	guest 'kill $(cat /tmp/rping.pid) 2>/dev/null; cat /tmp/rping.log' || true
	return $status
}

our_server() { # CONFIG SCHEME
	local address i
	address=$(address_of "$2")
	inside "$SOFTRDMA" ping --server --listen "$address:$port" --config "$1" --count "$ROUNDS" &
	server=$!
	for ((i = 0; i < 100; i++)); do
		kill -0 "$server" 2>/dev/null || break
		! grep -q -i 'listening' "$WORK/log" || break
		sleep 0.1
	done
	guest "rping -c -a $address -p $port -C $ROUNDS -S $BYTES -V"
	local status=$?
	wait "$server" || status=$?
	server=
	return $status
}

run_case() { # TITLE FUNCTION ARGUMENT...
	local title=$1 started=$EPOCHREALTIME status=0
	shift
	port=$((port + 1))
	"$@" >"$WORK/log" 2>&1 || status=$?
	if ((status == 0)); then
		printf 'PASS  %s (%.1f s)\n' "$title" "$(awk "BEGIN { print $EPOCHREALTIME - $started }")"
	else
		printf 'FAIL  %s (exit status %s)\n' "$title" "$status"
		tail -n 15 "$WORK/log" | sed 's/^/      /'
		failed=1
	fi
}

run_cases() {
	local scheme crc setup title schemes=(kernel-socket)
	! have_dpdk || schemes+=(sequential softrdma)
	for scheme in "${schemes[@]}"; do
		for crc in true false; do
			for setup in client-server peer-to-peer; do
				configure "$scheme" "$crc" "$setup" >"$WORK/$scheme.toml"
				[[ $crc == true ]] && title="$scheme, CRC on, $setup" || title="$scheme, CRC off, $setup"
				run_case "our client to rping -s: $title" our_client "$WORK/$scheme.toml"
			done
			run_case "rping -c to our server: $title" our_server "$WORK/$scheme.toml" "$scheme"
		done
	done
}

blocked_server() {
	SOFTRDMA_QUIET_MACHINE=1 cargo test --release -p softrdma-tests --test passive_side -- --nocapture
}

# --- the wire -------------------------------------------------------------------------------------

start_capture() {
	have tshark && have dumpcap || return 0
	# 64 MiB: frames that the capture loses on a busy machine would pass for bad ones.
	"$GUEST" exec dumpcap -q -B 64 -i br0 -w "$WORK/wire.pcap" 2>"$WORK/dumpcap.log" &
	capture=$!
	sleep 1
}

check_capture() {
	[[ -n $capture ]] || return 0
	sleep 1
	kill "$capture" && wait "$capture" || true
	capture=
	tests/dissect.sh "$WORK/wire.pcap" && return
	grep -i dropped "$WORK/dumpcap.log" || true
	cp "$WORK/wire.pcap" "${CARGO_TARGET_DIR:-target}/interop-failed.pcap"
	say "the capture is kept: ${CARGO_TARGET_DIR:-target}/interop-failed.pcap"
	return 1
}

# --------------------------------------------------------------------------------------------------

build
"$GUEST" up "$NAMESPACE"
"$GUEST" veth dveth0
start_capture
run_cases
run_case "a server blocked in a system call answers Reads within 1 ms" blocked_server
run_case "tshark on all of it: every CRC good, nothing malformed" check_capture
((failed == 0)) || die "not all cases passed"
