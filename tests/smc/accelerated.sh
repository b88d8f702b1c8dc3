# How many connections were accelerated; sourced by case.sh.
# shellcheck shell=bash

# Process ids of the daemons and of all that they started.
family() {
	ps -eo pid=,ppid= | awk -v roots="${daemons[*]}" '
		BEGIN { n = split(roots, root, " "); for (i = 1; i <= n; i++) member[root[i]] = 1 }
		{ parent[$1] = $2 }
		END {
			do {
				grown = 0
				for (pid in parent) if (!(pid in member) && parent[pid] in member) { member[pid] = 1; grown = 1 }
			} while (grown)
			for (pid in member) print pid
		}'
}

# Connections that the daemons have accelerated since they began, those that are gone included, as the tool has it.
accelerated_connections() {
	local pid pids=()
	for pid in $(family); do pids+=(--pid "$pid"); done
	# Not all of them have something to tell, which it complains about.
	{ "$SMCD" stats --json --absolute "${pids[@]}" 2>smcd.log || true; } | "$PYTHON" -c '
import json, sys
counters = json.loads(sys.stdin.readline() or "{}").get("counters", {})
print(max(counters.get("accelerated_as_client", 0), counters.get("accelerated_as_server", 0)))'
}

# Keeps the greatest number seen, for what ends before its last line is reached.
count_accelerated_so_far() {
	local now seen=0
	[[ -n $SMCD && $CONFIGURATION != none ]] || return 0
	now=$(accelerated_connections)
	[[ ! -s accelerated ]] || seen=$(<accelerated)
	((now <= seen)) || echo "$now" >accelerated
}

# With both ends preloaded some connection must have been accelerated by now; with one of them none can have been, unless
# servers talk to each other.
count_accelerated() {
	[[ -n $SMCD && $CONFIGURATION != none ]] || return 0
	count_accelerated_so_far
	if [[ $CONFIGURATION == both ]]; then
		[[ -s accelerated || -n $may_stay_tcp ]] || fail "no connection was accelerated"
	elif [[ $CONFIGURATION == client || -z $servers_talk ]]; then
		[[ ! -s accelerated ]] || fail "$(<accelerated) connections were accelerated with one end only"
	fi
}
