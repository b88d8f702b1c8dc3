#!/usr/bin/env bash
# what: Python's own tests of sockets, asyncio and ssl: no result differs from a run without the library
# configurations: both
# seconds: 1500
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../case.sh"
"$PYTHON" -c 'import test.test_socket, test.test_asyncio, test.test_ssl' 2>/dev/null ||
	skip_case "$PYTHON comes without its tests (apt-get install libpython3-testsuite)"

# It is no daemon, but the connections of the tests are counted in it.
server tests "$PYTHON" "$HERE/python_tests.py" "$LIBRARY"
unset LD_PRELOAD
while is_alive "${daemons[0]}"; do
	count_accelerated_so_far
	sleep 0.2
done
wait "${daemons[0]}" || fail "$(tail -n 20 tests.log)"
daemons=() daemon_names=()

finish
