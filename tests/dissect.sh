#!/usr/bin/env bash
# usage: tests/dissect.sh FILE: has tshark dissect a capture of ours, down to RDMAP. Fails unless it finds both MPA
# frames and messages with a CRC, every CRC is good, and nothing is malformed.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"

file=$(cd "$OLDPWD" && readlink -f -- "${1:?usage: tests/dissect.sh FILE}")
have tshark || die "no tshark (apt-get install tshark)"

# tshark guesses what a Send carries; some of our test data then passes for RPC, and bad RPC at that.
dissect() { tshark -r "$file" --disable-protocol rpcordma --disable-protocol smb_direct "$@" 2>/dev/null; }

count() { dissect -Y "$1" | wc -l; } # FILTER: frames of the capture

text=$(mktemp)
trap 'rm -f "$text"' EXIT
dissect -O iwarp_mpa,iwarp_ddp_rdmap >"$text"
requests=$(count iwarp_mpa.req)
replies=$(count iwarp_mpa.rep)
good=$(grep -c 'CRC check:.*(Good CRC32)' "$text" || true)
bad=$(grep -c 'CRC check:.*(Bad CRC32' "$text" || true)
malformed=$(count '_ws.malformed || iwarp_mpa.bad_length || iwarp_mpa.res.not_set0')

echo "MPA requests $requests, replies $replies; CRCs good $good, bad $bad; malformed frames $malformed"
((requests > 0 && replies > 0 && good > 0)) || die "$file: no iWARP with CRC in it"
if ((bad > 0)); then
	awk '/^Frame /{frame=$2} /^Internet Protocol/{ends=$0} /Bad CRC32/{print "  frame " frame " " ends ": " $0}' "$text" | head -20
	die "$file: $bad CRCs are wrong"
fi
((malformed == 0)) || die "$file: $malformed frames are malformed"
