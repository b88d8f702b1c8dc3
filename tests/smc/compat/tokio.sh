#!/usr/bin/env bash
# what: an echo server and client on tokio: edge-triggered epoll in several threads, every byte compared
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"

port=$(free_port)
server server "$BUILT/tokio_echo" server "$port"
wait_for_port "$port"

if [[ -n $SHORT ]]; then
	client "$BUILT/tokio_echo" client "$port" --connections 100 --bytes 1000000
else
	client "$BUILT/tokio_echo" client "$port" --connections 100 --bytes 2000000 --seed 1
	client "$BUILT/tokio_echo" client "$port" --connections 1 --bytes 200000000 --round-trips 10000 --seed 2
	client "$BUILT/tokio_echo" client "$port" --connections 500 --bytes 100000 --round-trips 5 --seed 3
fi
lacks server.log .

finish
