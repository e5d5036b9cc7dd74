"""Hooks for a gunicorn configuration file.

The shortest use, in ``gunicorn.conf.py``::

    from geventpool.gunicorn import post_fork, worker_exit, worker_int

    worker_class = "gevent"

A configuration with hooks of its own calls these from them::

    import geventpool.gunicorn

    def worker_exit(server, worker):
        say_goodbye()
        geventpool.gunicorn.worker_exit(server, worker)

What no hook has to do: a pool that was made before the fork (``preload_app``) empties itself in
the child, and its parent's connections are neither used nor closed there. That is part of the pool
and holds under any server.

Where gunicorn runs them (read in gunicorn 27, `Arbiter.spawn_worker` and `GeventWorker`):

=============  ===================================================================================
`post_fork`    in the child's main greenlet, *before* the gevent worker monkey-patches and before
               the application is loaded (unless ``preload_app``)
`worker_int`   on SIGINT and SIGQUIT: a greenlet of its own under the gevent worker, but the signal
               handler itself under the others; it must not wait
`worker_exit`  in the main greenlet, after the worker stopped to listen, for any reason of ending
               but SIGKILL. gunicorn calls it *in the master* too, when a worker vanished
=============  ===================================================================================
"""

from __future__ import annotations

import os
from typing import Any

from gevent import monkey

import geventpool
from geventpool.core.drain import drain_and_close
from geventpool.errors import ConfigError

__all__ = ["post_fork", "worker_exit", "worker_int"]

DRAIN_VARIABLE = "GEVENTPOOL_DRAIN_TIMEOUT"

# What a quick shutdown leaves to a query that is nearly done. gunicorn itself allows two seconds
# between its quick signal and SIGKILL.
QUICK_DRAIN = 1.0

# In worker_exit a worker can't beat any more (its heartbeat file is closed), and the master aborts
# one that hasn't beaten for `timeout` seconds. The last beat is up to a second old.
HEARTBEAT_MARGIN = 2.0

# The process id of the worker that was told to go quickly: a number, not a flag, so that a fork
# inherits nothing.
_quick_exit_of: int | None = None


def post_fork(server: Any, worker: Any) -> None:
    """Say in gunicorn's log if this worker can't be cooperative. Never switches.

    There is nothing to reset: the pools empty themselves at the fork. What goes wrong at this point
    is monkey-patching, with no sign of it but slowness; each case gets one warning with its cure.

    Args:
        server: gunicorn's arbiter.
        worker: the worker that has just been forked.
    """
    cure = _patching_cure(worker)
    # One worker speaks for all: they are forked from the same configuration.
    if cure is not None and getattr(worker, "age", 1) == 1:
        worker.log.warning("geventpool: %s", cure)


def worker_int(worker: Any) -> None:
    """Remember that the worker was told to go quickly (SIGINT, SIGQUIT). Never switches.

    `worker_exit`, which follows, then gives connections in use at most one second instead of the
    full grace time. This hook may run inside a signal handler, so it does nothing else.

    Args:
        worker: the worker that got the signal.
    """
    global _quick_exit_of
    _quick_exit_of = os.getpid()


def worker_exit(server: Any, worker: Any) -> None:
    """Let what is in use come back, then close every pool of this worker. May switch greenlets.

    gunicorn has answered the running requests by now, or given up on them; what may still hold a
    connection are greenlets that the application spawned. They go on running while this waits.

    The grace time in seconds is the environment's `GEVENTPOOL_DRAIN_TIMEOUT`, else gunicorn's
    `graceful_timeout`; never more than gunicorn's `timeout` less two seconds, after which the
    master would abort the silent worker. The master counts `graceful_timeout` from *its* signal and
    then sends SIGKILL: if requests have used that time up, nothing is left to wait for.

    Args:
        server: gunicorn's arbiter.
        worker: the worker that has ended its main loop.

    Raises:
        ConfigError: `GEVENTPOOL_DRAIN_TIMEOUT` isn't a number of seconds from 0 up. The pools are
            closed all the same.
    """
    if worker.pid != os.getpid():
        return  # the master speaks of a worker that vanished: its own pools are not meant
    drain_and_close(geventpool.pools(), lambda: _grace(worker), worker.log.warning)


def _grace(worker: Any) -> float:
    """The seconds for which `worker_exit` may wait."""
    text = os.environ.get(DRAIN_VARIABLE)
    grace = _seconds(text) if text else float(worker.cfg.graceful_timeout)
    if worker.cfg.timeout:
        grace = min(grace, max(0.0, worker.cfg.timeout - HEARTBEAT_MARGIN))
    return min(grace, QUICK_DRAIN) if _quick_exit_of == os.getpid() else grace


def _seconds(text: str) -> float:
    """The value of the environment's variable."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        cure = "set it to a number of seconds, 0 or more, or remove it"
        raise ConfigError(DRAIN_VARIABLE, text, cure)
    return seconds


def _patching_cure(worker: Any) -> str | None:
    """What to change so that the worker's standard library is cooperative, or None."""
    if monkey.is_module_patched("socket"):
        return None
    if not _patches_itself(worker):
        return (
            f"worker class {type(worker).__name__} doesn't monkey-patch, and a geventpool serves"
            ' greenlets; set worker_class = "gevent" in gunicorn.conf.py'
        )
    if worker.cfg.preload_app:
        return (
            "preload_app loads the application before the gevent worker monkey-patches, so locks"
            " and drivers made by then block; put `from gevent import monkey; monkey.patch_all()`"
            " at the top of gunicorn.conf.py"
        )
    return None


def _patches_itself(worker: Any) -> bool:
    """Whether this is gunicorn's gevent worker or made from it (named: it is not imported here)."""
    return any(c.__module__ == "gunicorn.workers.ggevent" for c in type(worker).__mro__)
