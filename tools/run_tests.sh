#!/usr/bin/env bash
# All tests: run_tests.sh PYTHON. In two lines beside each other, because most of them wait for servers.
set -uo pipefail
python=$1
log=.cache/tests.log
mkdir -p .cache

# The peers' own, then ours under fire. Each file is a process of its own: what counts time is not to
# meet the garbage of all the others.
second_line() {
    local ended=0
    for tests in tests/peers tests/stress/test_*.py; do
        echo "$tests"
        "$python" -m pytest -q "$tests" || ended=1
    done
    return $ended
}

set -m # so that it is a group of its own, which can be ended as a whole
second_line >$log 2>&1 &
second=$!
set +m
trap 'kill -- -$second 2>/dev/null' EXIT
"$python" -m pytest --ignore tests/stress --ignore tests/peers
first=$?
[ $first -lt 2 ] || exit $first # interrupted
echo "Waiting for tests/peers and tests/stress; see $log"
wait $second
ended=$?
cat $log
[ $first = 0 ] && [ $ended = 0 ]
