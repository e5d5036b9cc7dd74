"""Where the program runs: gunicorn's configuration, and the number of processes."""

from __future__ import annotations

from ..case import Case
from ..finding import Judgement, look, ok, unseen, wrong
from ..registry import check, once

_FEW_REQUESTS = 100


@check("gunicorn.worker_class", "slow", "deadlock", of=once)
def worker_class(case: Case, _: object) -> Judgement | None:
    """A worker that serves one request at a time, or by threads, needs no pool for greenlets."""
    found = case.deployment.worker_class
    if found is None:
        return None
    if case.deployment.has_greenlets:
        return ok(f"worker_class is {found}")
    return wrong(
        f"worker_class is {found}",
        "it serves no greenlets: each worker does one request at a time, or blocks in each query",
        "worker_class = 'gevent' in gunicorn.conf.py",
    )


@check("gunicorn.preload", "slow", "deadlock", of=once)
def preload(case: Case, _: object) -> Judgement | None:
    """The application is loaded before the worker patches."""
    deployment = case.deployment
    if not deployment.preload or not deployment.has_greenlets:
        return None
    if deployment.patches or case.process.patched_by == "the program":
        return ok("preload_app, and the program patches before it is loaded")
    return wrong(
        "preload_app loads the application before the gevent worker monkey-patches",
        "locks and drivers that were made by then block",
        "put 'from gevent import monkey; monkey.patch_all()' at the top of gunicorn.conf.py",
    )


@check("gunicorn.max_requests", "slow", of=once)
def max_requests(case: Case, _: object) -> Judgement | None:
    """Workers that are replaced all the time begin with an empty pool each."""
    few = case.deployment.max_requests
    if not few or few >= _FEW_REQUESTS:
        return None
    return look(
        f"max_requests is {few}",
        "each new worker begins with an empty pool, and connects for its first requests",
        "raise it to some thousands, with a max_requests_jitter, or leave it out",
    )


@check("gunicorn.worker_connections", "pool limit", "slow", of=once)
def worker_connections(case: Case, _: object) -> Judgement | None:
    """A pool that no request could ever fill."""
    greenlets = case.deployment.worker_connections
    if not greenlets or not case.targets:
        return None
    most = max((one.most for one in case.targets if one.is_ours), default=0)
    if greenlets >= most:
        return ok(f"{greenlets} requests at once in a worker, and up to {most:g} connections")
    return look(
        f"worker_connections is {greenlets}, below the {most:g} connections of a pool",
        "a worker never has as many requests at once as its pool has places",
        "lower max_size, which counts against the server's max_connections, or raise worker_connections",
    )


@check("deployment.processes", "too many connections", of=once)
def processes(case: Case, _: object) -> Judgement | None:
    """Is the number of processes known by which the sums are made?"""
    deployment = case.deployment
    running = len(case.snapshots)
    if running > deployment.processes and deployment.source:
        return look(
            f"{running} processes run, and {deployment.source} says {deployment.workers} workers",
            "all sums are too low: other programs, or workers of an older release, have pools, too",
            "say it by --workers and --hosts, or end what should not run any more",
        )
    if deployment.source:
        return ok(f"{deployment.tell()} ({deployment.source})")
    if running > 1:
        return ok(f"{running} processes run")
    return unseen(
        "how many processes there are: one is assumed",
        "say it by --workers and --hosts, or name gunicorn's configuration by --gunicorn",
    )
