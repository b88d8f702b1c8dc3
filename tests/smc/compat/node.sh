#!/usr/bin/env bash
# what: node: http server and client with hashes, streams and raw sockets; workers that are handed their connections
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs node

requests=$([[ -n $SHORT ]] && echo 600 || echo 5000)
for workers in 0 2; do
	port=$(free_port)
	raw=$(free_port)
	server "server-$workers" node "$HERE/node_server.js" "$port" "$raw" "$workers"
	wait_for_port "$port"
	wait_for_port "$raw"
	client node "$HERE/node_client.js" "$port" "$raw" "$requests"
	lacks "server-$workers.log" Error
done

finish
