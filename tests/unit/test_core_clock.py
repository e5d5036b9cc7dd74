"""The hub's timers on gevent's other loop."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import gevent
from geventpool.core.clock import HubClock

rung = []
for seconds in (-1.0, 0.0, 0.0001, 0.002):
    HubClock().call_later(seconds, lambda seconds=seconds: rung.append(seconds), ref=True)
gevent.wait()
print(sorted(rung), type(gevent.get_hub().loop).__module__)
"""


def test_a_timer_of_less_than_libuv_can_do_rings_without_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "GEVENT_LOOP": "libuv-cffi"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "[-1.0, 0.0, 0.0001, 0.002] gevent.libuv.loop\n", done.stderr
