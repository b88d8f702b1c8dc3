#!/usr/bin/env bash
# what: curl against Python's HTTP server: downloads, uploads, chunks, many at once, TLS
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs curl openssl

bytes=$([[ -n $SHORT ]] && echo 5000000 || echo 100000000)
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -days 2 \
	-keyout key.pem -out certificate.pem 2>openssl.log

fetch() { client curl --silent --show-error --fail --cacert certificate.pem "$@"; } # OPTIONS... URL
digests() { "$PYTHON" "$HERE/http_server.py" digests "$@"; } # LENGTH...

many() { # URL OPTIONS...: the digests of files of 20,000 to 20,039 bytes
	mkdir many
	fetch "${@:2}" --output 'many/#1' "$1/content/[20000-20039]" 2>many.log
	(cd many && sha256sum -- *) | cut -d' ' -f1
	rm -r many
}

try() { # URL
	same "download" "$(fetch "$1/content/$bytes" | digest)" "$whole"
	same "download in chunks" "$(fetch "$1/chunked/$bytes" | digest)" "$whole"
	same "digest of an upload" "$(fetch --upload-file upload "$1/digest")" "$uploaded"
	same "digest of an upload in chunks" \
		"$(fetch -H 'Transfer-Encoding: chunked' --upload-file - "$1/digest" <upload)" "$uploaded"
	same "forty files over one connection" "$(many "$1")" "$forty"
	same "forty files over twenty connections" "$(many "$1" --parallel --parallel-max 20)" "$forty"
}

whole=$(digests "$bytes")
forty=$(digests {20000..20039})
random_file upload "$bytes"
uploaded=$(digest <upload)
plain=$(free_port)
server plain "$PYTHON" "$HERE/http_server.py" serve "$plain"
wait_for_port "$plain"
tls=$(free_port)
server tls "$PYTHON" "$HERE/http_server.py" serve "$tls" certificate.pem key.pem
wait_for_port "$tls"
try "http://127.0.0.1:$plain"
try "https://127.0.0.1:$tls"
lacks plain.log Traceback
lacks tls.log Traceback

finish
