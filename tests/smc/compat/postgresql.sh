#!/usr/bin/env bash
# what: PostgreSQL: pgbench with its sums checked, -C too, COPY, dump, base backup, notifications
# short: yes
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"

# Debian keeps the server's programs beside its libraries, one directory a version.
for directory in /usr/lib/postgresql/*/bin; do PATH=$directory:$PATH; done
needs initdb postgres psql pgbench pg_dump pg_basebackup pg_verifybackup setpriv

# The server refuses to be root; both ends have to be the same user.
user=()
if ((EUID == 0)); then
	user=(setpriv "--reuid=nobody" "--regid=$(id -g nobody)" --clear-groups env "HOME=$SCRATCH")
	chmod 777 .
fi
transactions=$([[ -n $SHORT ]] && echo 50 || echo 1000)
rows=$([[ -n $SHORT ]] && echo 20000 || echo 1000000)
port=$(free_port)

# Settings that make no difference to what goes over the sockets, and a great one to how long it takes.
"${user[@]}" initdb --pgdata "$SCRATCH/data" --auth trust --username tester --encoding UTF8 --locale C --no-sync >initdb.log
cat >>data/postgresql.conf <<END
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
fsync = off
ssl = off
END
server postgres "${user[@]}" "$(command -v postgres)" -D "$SCRATCH/data"
wait_for_port "$port"
export PGHOST=127.0.0.1 PGPORT=$port PGUSER=tester PGDATABASE=postgres PGCONNECT_TIMEOUT=10

# Each in the environment that `client` makes, as the server's user.
sql() { client "${user[@]}" psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$@"; }
ready() { sql --command 'select 1' >ready.log 2>&1; }
eventually ready

# Rows whose every byte is known, there and back.
"$PYTHON" - "$rows" >known.csv <<'END'
import hashlib, sys
for number in range(int(sys.argv[1])):
    print(f"{number},{hashlib.md5(str(number).encode()).hexdigest()}")
END
sql --command 'create table known (number bigint primary key, digest text)'
sql --command '\copy known from stdin csv' <known.csv
same "rows whose digest is right" "$(sql --command "select count(*) from known where digest = md5(number::text)")" "$rows"
same "all rows by COPY" "$(sql --command '\copy (select * from known order by number) to stdout csv' | digest)" \
	"$(digest <known.csv)"
same "all rows by SELECT" "$(sql --field-separator , --command 'select * from known order by number' | digest)" \
	"$(digest <known.csv)"
same "a value of 10 MB" "$(sql --command "select repeat('0123456789', 1000000)" | digest)" \
	"$("$PYTHON" -c "print('0123456789' * 1000000)" | digest)"

# A process of the server ends with its connection, so what is accelerated is counted on the way. What pgbench keeps true of its tables whatever it is stopped in the middle of.
bench() { counting client "${user[@]}" pgbench --no-vacuum "$@" >pgbench.log 2>&1 || fail "pgbench $*: $(tail -n 3 pgbench.log)"; }
expected=0
sums_agree() { # TRANSACTIONS: done by the last run
	expected=$((expected + $1))
	same "transactions in the history" "$(sql --command 'select count(*) from pgbench_history')" "$expected"
	same "whether the sums agree" t "$(sql --command 'select
		(select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) and
		(select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history) and
		(select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)')"
	holds pgbench.log 'number of failed transactions: 0 '
}
bench --initialize --scale 1
bench --client 8 --jobs 2 --transactions "$transactions"
sums_agree $((8 * transactions))
bench --client 4 --jobs 2 --transactions "$transactions" --protocol prepared
sums_agree $((4 * transactions))
# A connection for every transaction: a fork of the server each.
bench --client 4 --jobs 2 --transactions $((transactions / 5)) --connect
sums_agree $((4 * (transactions / 5)))
bench --client 8 --jobs 2 --transactions "$transactions" --select-only

same "a notification" "$(sql --command 'listen bell' --command "notify bell, 'rung'" --command 'select 1' | grep -c '"rung"')" 1
if sql --command 'set statement_timeout = 200' --command 'select pg_sleep(20)' 2>timeout.log; then
	fail "a statement went on after its timeout"
fi
holds timeout.log 'statement timeout'

if [[ -z $SHORT ]]; then
	client "${user[@]}" pg_dump --table known --data-only postgres | grep -E '^[0-9]+	' | tr '\t' , | sort -n >dumped
	same "the table in a dump" "$(digest <dumped)" "$(digest <known.csv)"
	client "${user[@]}" pg_basebackup --pgdata "$SCRATCH/backup" --checkpoint fast --wal-method stream
	"${user[@]}" pg_verifybackup --quiet backup
	second=$(free_port)
	server second "${user[@]}" "$(command -v postgres)" -D "$SCRATCH/backup" -p "$second"
	wait_for_port "$second"
	same "rows in the backup" "$(PGPORT=$second eventually ready && PGPORT=$second \
		sql --command "select count(*) from known where digest = md5(number::text)")" "$rows"
fi
lacks postgres.log 'PANIC|terminated by signal'

finish
