#!/usr/bin/env bash
# All tests: run_tests.sh PYTHON. In three lines beside each other, because most of them wait for servers.
set -uo pipefail
python=$1
logs=.cache/tests
mkdir -p $logs

# What counts time is not to meet the garbage of all the others: each file is a process of its own.
each() {
    local ended=0
    for tests in "$@"; do
        echo "$tests"
        # Some tests of the peers are other programs, which take minutes.
        "$python" -m pytest -q -o faulthandler_timeout=600 "$tests" || ended=1
    done
    return $ended
}

alone=(tests/integration/test_{gunicorn,gunicorn_in_earnest,loadtests}.py)
with_servers() {
    "$python" -m pytest --durations 10 tests/integration "${alone[@]/#/--ignore=}" \
        --ignore=tests/integration/test_django.py
}

under_fire() {
    each tests/peers tests/stress/test_*.py tests/integration/test_django.py
}

set -m # so that each is a group of its own, which can be ended as a whole
with_servers >$logs/with_servers.log 2>&1 &
servers=$!
under_fire >$logs/under_fire.log 2>&1 &
fire=$!
set +m
trap 'kill -- -$servers -$fire 2>/dev/null' EXIT
"$python" -m pytest --durations 10 tests/unit tests/property
first=$?
[ $first -lt 2 ] || exit $first # interrupted
each "${alone[@]}" && ended=$first || ended=1
for line in $servers:with_servers $fire:under_fire; do
    log=$logs/${line#*:}.log
    echo "Waiting for the others; see $log"
    wait "${line%:*}" || ended=1
    cat "$log"
done
exit $ended
