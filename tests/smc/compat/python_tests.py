"""Runs Python's tests of sockets with and without a library preloaded and compares the results, test by test:
python_tests.py LIBRARY

Some of these tests fail now and then on a busy machine, whoever runs them. So one whose result differs is run by itself, three
times with the library and three times without: only if all six agree was it noise.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as xml

MODULES = ("test_socket", "test_asyncio", "test_ssl")
# Sockets to and from virtual machines are no business of ours, and where there is none to talk to these tests hang.
IGNORED = "*VSOCK*"
# Connections of tests are short: with the first of these nearly all of them stay TCP, with the second none.
SETTINGS = ({}, {"SOFTRDMA_SMC_UPGRADE_AFTER": "0"})
AGAIN = 3
# All three modules together have some three thousand.
LEAST = 2000


def run(name, environment, match=None):
    """Results by test: passed, failed or skipped. What it printed is in NAME.log."""
    command = [sys.executable, "-m", "test", "--junit-xml", name + ".xml", "--timeout", "200"]
    # Most of the time they wait. What is to be left out has to be said last.
    command += ["-m", match] if match else ["-j3"]
    command += ["-i", IGNORED]
    with open(name + ".log", "w") as output:
        status = subprocess.run([*command, *MODULES], env={**os.environ, **environment}, stdout=output, stderr=output).returncode
    if not os.path.exists(name + ".xml"):
        sys.exit(f"FAILED: Python ended with status {status} before the last test: see {name}.log")
    results = {}
    for case in xml.parse(name + ".xml").getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        test = case.get("name")
        results[test] = "failed" if "failed" in (outcome, results.get(test)) else outcome
    return results


def preloaded(library, setting):
    return {**setting, "LD_PRELOAD": library}


def is_noise(test, library, setting):
    outcomes = set()
    for turn in range(AGAIN):
        for kind, environment in (("plain", {}), ("preloaded", preloaded(library, setting))):
            results = run(f"{test.replace('/', '-')}-{kind}-{turn}", environment, test)
            outcomes.add(results.get(test, "absent"))
    return len(outcomes) == 1


def main():
    library = sys.argv[1]
    different = []
    plain = run("plain", {})
    print(f"{len(plain)} tests, {sum(result == 'failed' for result in plain.values())} fail without the library", flush=True)
    if len(plain) < LEAST:
        sys.exit(f"FAILED: only {len(plain)} tests were run: see plain.log")
    for index, setting in enumerate(SETTINGS):
        results = run(f"preloaded-{index}", preloaded(library, setting))
        for test in sorted(plain.keys() | results.keys()):
            with_it, without = results.get(test, "absent"), plain.get(test, "absent")
            if with_it != without:
                noise = is_noise(test, library, setting)
                print(f"{test}: {with_it} with the library {setting}, {without} without; by itself always one result: {noise}")
                if not noise:
                    different.append(test)
    if different:
        sys.exit(f"FAILED: results differ: {', '.join(different)}")


main()
