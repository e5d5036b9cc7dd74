#!/usr/bin/env bash
# All tests: run_tests.sh PYTHON. In two lines beside each other, because most of them wait for servers.
set -uo pipefail
python=$1
log=.cache/tests.log
mkdir -p .cache

# The peers' own, then ours under fire and under load. Each file is a process of its own: what counts time
# is not to meet the garbage of all the others.
second=(tests/peers tests/stress/test_*.py tests/integration/test_{django,gunicorn,gunicorn_in_earnest,loadtests}.py)
second_line() {
    local ended=0
    for tests in "${second[@]}"; do
        echo "$tests"
        # Some tests of the peers are other programs, which take minutes.
        "$python" -m pytest -q -o faulthandler_timeout=600 "$tests" || ended=1
    done
    return $ended
}

set -m # so that it is a group of its own, which can be ended as a whole
second_line >$log 2>&1 &
group=$!
set +m
trap 'kill -- -$group 2>/dev/null' EXIT
"$python" -m pytest --durations 10 "${second[@]/#/--ignore=}"
first=$?
[ $first -lt 2 ] || exit $first # interrupted
echo "Waiting for the others; see $log"
wait $group
ended=$?
cat $log
[ $first = 0 ] && [ $ended = 0 ]
