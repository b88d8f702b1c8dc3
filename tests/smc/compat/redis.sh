#!/usr/bin/env bash
# what: redis: benchmark, known data, saving under load, a replica
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
needs redis-server redis-cli redis-benchmark

keys=$([[ -n $SHORT ]] && echo 500 || echo 20000)
requests=$([[ -n $SHORT ]] && echo 5000 || echo 100000)
port=$(free_port)

redis() { server "$1" redis-server --bind 127.0.0.1 --port "$2" --dir "$SCRATCH" --save '' --dbfilename "$1.rdb" --repl-diskless-sync-delay 0; }
cli() { client redis-cli -p "$port" "$@"; }
data() { client "$PYTHON" "$HERE/redis_data.py" "$@"; }

servers_talk=yes
redis first "$port"
wait_for_port "$port"

data load "$port" "$keys"
data check "$port" "$keys"
random_file blob 8000000
same "reply to SET" "$(cli -x set blob <blob)" OK
same "blob" "$(cli --raw get blob | head -c 8000000 | digest)" "$(digest <blob)"
same "a counter" "$(cli -r 300 incr counter | tail -n 1)" 300

for shape in "-c 50 -d 1024" "-c 1 -d 64" "-c 20 -d 100 -P 16"; do
	# shellcheck disable=SC2086 # several words
	client redis-benchmark -p "$port" -t set,get,lpush,lrange_100 -n $((requests / 5)) -r 1000 $shape --csv >benchmark.csv
	same "results of redis-benchmark $shape" "$(wc -l <benchmark.csv)" 6
	lacks benchmark.csv '[Ee]rror'
done

# Saved by a forked child while clients write; what it saved loads elsewhere and is right.
client redis-benchmark -p "$port" -t set,get -n "$requests" -c 50 -d 512 -r 1000 -q >load.log 2>&1 &
load=$!
saved_at=$(cli lastsave)
sleep 1.1 # LASTSAVE counts in seconds
same "reply to BGSAVE" "$(cli bgsave)" "Background saving started"
saved() { [[ $(cli lastsave) -gt $saved_at ]]; }
eventually saved
cli info persistence >persistence
holds persistence '^rdb_last_bgsave_status:ok'
wait "$load" || fail "redis-benchmark during BGSAVE: $(tail -n 3 load.log)"
data check "$port" "$keys"
size=$(cli dbsize)

cp first.rdb second.rdb
second=$(free_port)
redis second "$second"
wait_for_port "$second"
data check "$second" "$keys"
same "keys of the loaded file" "$(client redis-cli -p "$second" dbsize)" "$size"
same "blob of the loaded file" \
	"$(client redis-cli -p "$second" --raw get blob | head -c 8000000 | digest)" "$(digest <blob)"

# A replica: one server is the client of the other, and that one forks to send it everything.
client redis-cli -p "$second" flushall >/dev/null
client redis-cli -p "$second" replicaof 127.0.0.1 "$port" >/dev/null
linked() { client redis-cli -p "$second" info replication | grep -q '^master_link_status:up'; }
eventually linked
cli set late yes >/dev/null
same "replicas that have the last write" "$(cli wait 1 5000)" 1
data check "$second" "$keys"
same "keys of the replica" "$(client redis-cli -p "$second" dbsize)" "$(cli dbsize)"

finish
