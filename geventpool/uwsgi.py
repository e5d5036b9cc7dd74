"""What uWSGI's workers do at their end. One line where the application is made::

    from geventpool.uwsgi import drain_at_exit

    drain_at_exit()

For the forks nothing has to be done: a pool that the master used while it loaded the application
is empty in each worker, with ``lazy-apps`` and without, with ``py-call-osafterfork`` and without.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import gevent

import geventpool
from geventpool.core.drain import drain_and_close
from geventpool.setting import read_seconds

__all__ = ["drain_at_exit"]

log = logging.getLogger("geventpool")

_TICK = 0.02


def drain_at_exit(timeout: float = 10.0) -> None:
    """Has each worker answer what it has begun, at its end, and then close every pool.

    Without it a worker that is stopped (SIGINT, SIGTERM) does not wait for requests that still run
    in uWSGI's gevent loop, and their connections and all idle ones are broken off.
    Sets `uwsgi.atexit`; what was set there before is called afterwards. Outside of uWSGI nothing is
    done. Never switches greenlets.

    Args:
        timeout: seconds to wait, less than uWSGI's ``worker-reload-mercy``.

    Raises:
        ConfigError: `timeout` isn't a number of seconds from 0 up.
    """
    read_seconds("timeout", timeout, may_be_endless=False)
    try:
        uwsgi: Any = import_module("uwsgi")  # uWSGI's own, there is none to install
    except ImportError:
        return
    before: Callable[[], object] | None = getattr(uwsgi, "atexit", None)

    def at_exit() -> None:
        # In the master, which is number 0, no loop runs, so nothing would come back.
        deadline = time.monotonic() + (timeout if uwsgi.worker_id() else 0.0)
        try:
            while _is_busy(uwsgi) and time.monotonic() < deadline:
                gevent.sleep(_TICK)
        finally:
            try:
                drain_and_close(
                    geventpool.pools(), lambda: deadline - time.monotonic(), log.warning
                )
            finally:
                if before is not None:
                    before()

    uwsgi.atexit = at_exit


def _is_busy(uwsgi: Any) -> bool:
    """Does this worker still answer requests? There is no event for it."""
    number: int = uwsgi.worker_id()
    return number > 0 and uwsgi.workers()[number - 1]["status"] == b"busy"
