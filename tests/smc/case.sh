# Shared by the programs under compat/, which compat.sh runs with these in their environment; sourced, never run.
#   CONFIGURATION  none, both, client or server: which ends have the library preloaded
#   LIBRARY        the library; SMCD: the tool that shows what it does ('' if there is none)
#   SCRATCH        a directory of this run, readable for other users; SHORT: not empty if less is to be done
#   PYTHON         the interpreter itself, as what stands on PATH may be a script; BUILT: where cargo put our programs
# A case starts its daemons with `server`, runs its clients with `client` and ends with `finish`.
# shellcheck shell=bash
set -Eeuo pipefail
: "${CONFIGURATION:?run by tests/smc/compat.sh}" "${SCRATCH:?run by tests/smc/compat.sh}"

HERE=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/compat
cd "$SCRATCH"
daemons=()      # process ids
daemon_names=() # of the same length
servers_talk='' # not empty where servers are each other's clients
may_stay_tcp='' # not empty where nothing is accelerated with good reason
good_statuses="0 143" # with which daemons end when they are asked to

fail() {
	echo "FAILED: $*"
	exit 1
}
trap 'echo "FAILED: line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND (exit status $?)"' ERR

skip_case() {
	echo "skipped: $*"
	exit 77
}

needs() { # COMMAND...
	local command
	for command in "$@"; do
		command -v "$command" >/dev/null || skip_case "no $command (tests/setup.sh smc)"
	done
}

# In a subshell that is about to run a program of that end: the library, if this end has it in this configuration.
preload() { # client | server
	if [[ $CONFIGURATION == both || $CONFIGURATION == "$1" ]]; then
		export LD_PRELOAD=$LIBRARY${LD_PRELOAD:+:$LD_PRELOAD}
	fi
}

# Starts a daemon that stays in the foreground; its output goes to NAME.log.
server() { # NAME COMMAND...
	(
		preload server
		exec "${@:2}"
	) </dev/null >>"$1.log" 2>&1 &
	daemons+=($!)
	daemon_names+=("$1")
}

client() { # COMMAND...
	(
		preload client
		exec "$@"
	)
}

is_listening() { # PORT
	grep -qE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# Below the ports that the kernel gives to connecting sockets.
free_port() {
	local port
	for _ in {1..1000}; do
		port=$((20000 + RANDOM % 10000))
		is_listening "$port" || { echo "$port"; return; }
	done
	fail "no free port"
}

# Without connecting to it, as some servers serve one connection only.
wait_for_port() { # PORT
	for _ in {1..200}; do
		! is_listening "$1" || return 0
		all_alive
		sleep 0.05
	done
	fail "nothing listens on port $1 after 10 s"
}

# Neither gone nor a zombie.
is_alive() { # PID
	local line=''
	{ read -r line <"/proc/$1/stat"; } 2>/dev/null || true
	[[ -n $line && ${line##*) } != Z* ]]
}

all_alive() {
	local at
	for at in "${!daemons[@]}"; do
		is_alive "${daemons[at]}" || fail "${daemon_names[at]} is gone: $(tail -n 3 "${daemon_names[at]}.log")"
	done
}

# Waits for COMMAND to succeed, for as long as ten seconds.
eventually() { # COMMAND...
	for _ in {1..100}; do
		! "$@" || return 0
		sleep 0.1
	done
	fail "not true after 10 s: $*"
}

same() { # WHAT ACTUAL EXPECTED
	[[ $2 == "$3" ]] || fail "$1 is '${2:0:400}', not '${3:0:400}'"
}

holds() { # FILE PATTERN: some line of the file has the pattern
	grep -qE -- "$2" "$1" || fail "no line of $1 has /$2/: $(tail -n 5 "$1")"
}

lacks() { # FILE PATTERN
	! grep -qE -- "$2" "$1" || fail "a line of $1 has /$2/: $(grep -E -- "$2" "$1" | head -n 5)"
}

digest() { sha256sum | cut -d' ' -f1; }

random_file() { head -c "$2" /dev/urandom >"$1"; } # FILE BYTES

end_daemon() { # INDEX: asks it to end, waits, and sets `status`
	local pid=${daemons[$1]}
	kill -TERM "$pid" 2>/dev/null || true
	for _ in {1..200}; do
		is_alive "$pid" || break
		sleep 0.05
	done
	! is_alive "$pid" || { echo "${daemon_names[$1]} does not end"; kill -KILL "$pid" 2>/dev/null || true; }
	status=0
	wait "$pid" || status=$?
}

# Ends the daemon that was started last and looks at how it ended: a crash on the way out is one, too.
stop_last() {
	local status at=$((${#daemons[@]} - 1))
	end_daemon "$at"
	[[ " $good_statuses " == *" $status "* ]] || fail "${daemon_names[at]} ended with status $status: $(tail -n 3 "${daemon_names[at]}.log")"
	unset "daemons[at]" "daemon_names[at]"
}

end_all() {
	local status
	trap - ERR
	while ((${#daemons[@]})); do
		end_daemon $((${#daemons[@]} - 1))
		unset "daemons[-1]" "daemon_names[-1]"
	done
}
trap end_all EXIT
trap 'echo "FAILED: ended from outside in line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"; exit 143' TERM

# Runs COMMAND and counts meanwhile, for servers whose processes end with the connection.
counting() { # COMMAND...
	local job
	"$@" &
	job=$!
	while is_alive "$job"; do
		count_accelerated_so_far
		sleep 0.1
	done
	wait "$job"
}

. "$HERE/../accelerated.sh"

# The end of a case: everything still runs, what had to be accelerated was, and all daemons end well.
finish() {
	all_alive
	count_accelerated
	while ((${#daemons[@]})); do stop_last; done
	: >finished
	echo "ok"
}
