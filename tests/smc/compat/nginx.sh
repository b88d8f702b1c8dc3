#!/usr/bin/env bash
# what: nginx, wrk and curl: keep-alive, Connection: close, sendfile, a proxy, reload under load
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs nginx wrk curl

seconds=$([[ -n $SHORT ]] && echo 1 || echo 3)
megabytes=$([[ -n $SHORT ]] && echo 16 || echo 200)
port=$(free_port)
inner=$(free_port)

mkdir files temporary
random_file files/large "$((megabytes * 1000000))"
random_file files/middle 300000
random_file files/small 612
cat >nginx.conf <<END
daemon off;
pid $SCRATCH/nginx.pid;
worker_processes 2;
$( ((EUID != 0)) || echo "user root;")
events { worker_connections 1024; }
http {
	access_log off;
	sendfile on;
	keepalive_requests 1000000;
	client_body_temp_path $SCRATCH/temporary/body;
	proxy_temp_path $SCRATCH/temporary/proxy;
	fastcgi_temp_path $SCRATCH/temporary/fastcgi;
	uwsgi_temp_path $SCRATCH/temporary/uwsgi;
	scgi_temp_path $SCRATCH/temporary/scgi;
	upstream inner { server 127.0.0.1:$inner; keepalive 8; }
	server { listen 127.0.0.1:$inner; root $SCRATCH/files; }
	server {
		listen 127.0.0.1:$port;
		root $SCRATCH/files;
		location /buffered/ { alias $SCRATCH/files/; sendfile off; }
		location /proxied/ { proxy_pass http://inner/; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}
END

url=http://127.0.0.1:$port
fetch() { client curl --silent --show-error --fail "$@"; } # OPTIONS... URL
load() { # FILE OPTIONS... PATH
	client wrk --threads 2 --connections 32 --duration "${seconds}s" "${@:2:$#-2}" "$url/${*: -1}" >"$1" 2>&1
}
all_answered() { # FILE: what wrk printed
	holds "$1" '^Requests/sec: +[0-9]*[1-9]'
	lacks "$1" 'Socket errors|Non-2xx'
}

servers_talk=yes
server nginx nginx -p "$SCRATCH" -e stderr -c "$SCRATCH/nginx.conf"
wait_for_port "$port"

large=$(digest <files/large)
same "large file by sendfile" "$(fetch "$url/large" | digest)" "$large"
same "large file without sendfile" "$(fetch "$url/buffered/large" | digest)" "$large"
same "large file through the proxy" "$(fetch "$url/proxied/large" | digest)" "$large"
same "a slow reader's file" "$(fetch --limit-rate 4M "$url/middle" | digest)" "$(digest <files/middle)"
same "the last 100,000 bytes" "$(fetch --range -100000 "$url/large" | digest)" "$(tail -c 100000 files/large | digest)"

# Many requests over one connection.
fetch "$url/{small,middle}?[1-100]" >many
same "200 files over one connection" "$(digest <many)" "$(
	{
		for _ in {1..100}; do cat files/small; done
		for _ in {1..100}; do cat files/middle; done
	} | digest
)"

load keep-alive.log small
all_answered keep-alive.log
if [[ -z $SHORT ]]; then
	load middle.log middle
	all_answered middle.log
	load close.log -H 'Connection: close' small
	all_answered close.log
fi
load proxied.log proxied/small
all_answered proxied.log

# The workers that did all this are about to go.
count_accelerated

# New workers take over while old ones finish what they have begun. A connection that is kept alive may be closed by an old
# worker just as the next request is sent: http_load.py tries again then, as browsers do, and counts anything else.
reload() { # SECONDS
	local at
	for ((at = 0; at < $1 * 2; at++)); do
		sleep 0.5
		kill -HUP "${daemons[0]}"
	done
}
load reload.log -H 'Connection: close' small &
wrk=$!
client "$PYTHON" "$HERE/http_load.py" "$port" "$seconds" small=files/small middle=files/middle >http_load.log 2>&1 &
checker=$!
reload "$seconds"
wait "$wrk" || fail "wrk during reload: $(<reload.log)"
wait "$checker" || fail "http_load.py during reload: $(<http_load.log)"
all_answered reload.log
same "large file after reload" "$(fetch "$url/large" | digest)" "$large"
lacks nginx.log 'alert|emerg|exited on signal'

finish
