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

# To be called while the daemons run. With both ends preloaded some connection must have been accelerated; with one of
# them none can have been.
count_accelerated() {
	[[ -n $SMCSS && $CONFIGURATION != none ]] || return 0
	fail "there is no way yet to count accelerated connections"
}
