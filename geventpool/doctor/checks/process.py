"""Monkey-patching: was it done, of all that matters, and early enough?"""

from __future__ import annotations

from ..case import Case
from ..finding import Judgement, look, ok, unseen, wrong
from ..registry import check, once

_FIRST = (
    "call gevent.monkey.patch_all() in the very first lines of the program, before other imports"
)


@check("process.patched", "slow", of=once)
def patched(case: Case, _: object) -> Judgement | None:
    """Without it a query stops all greenlets, or there are none."""
    process, deployment = case.process, case.deployment
    if not process.is_loaded:
        return None
    if process.patched_by:
        return ok(f"monkey-patched by {process.patched_by}")
    if deployment.worker_class is None:
        return unseen(
            "nothing in the program has monkey-patched it, and which server runs it is not known",
            "name gunicorn's configuration by --gunicorn, or call gevent.monkey.patch_all() first",
        )
    if deployment.has_greenlets and not deployment.preload:
        return ok(f"gunicorn's {deployment.worker_class} worker patches it before it is loaded")
    return None  # gunicorn.worker_class and gunicorn.preload say why


@check("process.early_imports", "slow", "lost changes", of=once)
def early_imports(case: Case, _: object) -> Judgement | None:
    """What was imported before the patches may hold on to what blocks."""
    process = case.process
    if not process.patched_by:
        return None
    if not process.early:
        return ok("nothing that matters was imported before it was monkey-patched")
    return wrong(
        f"imported before it was monkey-patched: {', '.join(process.early)}",
        "they hold on to sockets, locks or contexts that block the whole process",
        _FIRST,
    )


@check("process.patched_whole", "slow", "deadlock", of=once)
def patched_whole(case: Case, _: object) -> Judgement | None:
    """Patched sockets and native locks make greenlets wait for ever."""
    process = case.process
    if not process.patched_by:
        return None
    if not process.left_out:
        return ok("sockets, threads, locks, select, TLS and time are patched")
    return look(
        f"left out of monkey-patching: {', '.join(process.left_out)}",
        "what waits there stops all greenlets, and locks may never be let go",
        "call gevent.monkey.patch_all() without arguments",
    )


@check("process.django_shared", "lost changes", "deadlock", of=once)
def django_shared(case: Case, _: object) -> Judgement | None:
    """Django's connections are kept by what `threading.local` was when Django was imported."""
    if not case.process.shares_django:
        return None
    return wrong(
        "Django was imported before gevent.monkey.patch_all()",
        "all greenlets share one connection of each alias, and its transactions",
        "patch first, at the very top of gunicorn.conf.py or of wsgi.py",
    )
