#!/usr/bin/env bash
# All tests: run_tests.sh PYTHON. The peers' own run beside ours, in a process of their own.
set -uo pipefail
python=$1
mkdir -p .cache
set -m # so that it is a group of its own, which can be ended as a whole
"$python" -m pytest -q tests/peers >.cache/peers.log 2>&1 &
peers=$!
set +m
trap 'kill -- -$peers 2>/dev/null' EXIT
"$python" -m pytest --ignore tests/stress --ignore tests/peers || exit
echo "tests/peers"
wait $peers
ended=$?
cat .cache/peers.log
[ $ended = 0 ] || exit $ended
# Each in a process of its own: what counts time is not to meet the garbage of all the others.
for file in tests/stress/test_*.py; do
    echo "$file"
    "$python" -m pytest -q "$file" || exit
done
