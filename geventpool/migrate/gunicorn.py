"""gunicorn's configuration: the gevent worker, and the hooks by which its pools end well."""

from __future__ import annotations

import ast

from .plan import Plan, string

_HOOKS = ("post_fork", "worker_exit", "worker_int")


def propose_gunicorn(plan: Plan) -> None:
    """Sets the worker class, and imports the hooks."""
    given = {
        target.id: one
        for one in plan.tree.body
        if isinstance(one, ast.Assign)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    chosen = given.get("worker_class")
    before = string(chosen.value) if chosen is not None else None
    if chosen is not None and before not in (None, "gevent"):
        if "gevent" in str(before).lower():  # of somebody's own, or of gevent-websocket
            plan.say(chosen, f"worker_class stays: {before} serves greenlets by its name")
        else:
            plan.replace(chosen.value, '"gevent"')
            plan.say(chosen, f"{before} workers serve no greenlets, for which the pool is made")
    if "preload_app" in given and "patch_all" not in plan.before:
        plan.say(given["preload_app"], "with preload_app call gevent.monkey.patch_all() at the top")
    if "threads" in given:
        plan.say(
            given["threads"], "threads has no meaning for gevent workers: worker_connections has"
        )
    defined = {
        one.name for one in plan.tree.body if isinstance(one, ast.FunctionDef)
    } | given.keys()
    own = [name for name in _HOOKS if name in defined]
    for name in own:
        plan.say(
            next(one for one in plan.tree.body if getattr(one, "name", name) == name),
            f"call geventpool.gunicorn.{name} from this hook",
        )
    if "geventpool.gunicorn" not in plan.before:
        missing = [name for name in _HOOKS if name not in own]
        plan.need("geventpool.gunicorn", ", ".join(missing))
        plan.say(plan.tree.body[0], "the hooks let what is in use come back before a worker ends")
