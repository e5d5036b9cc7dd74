"""The pools' settings, by themselves and against where they run."""

from __future__ import annotations

import math
from collections import Counter

from ..case import Case, Target
from ..finding import Judgement, look, ok, wrong
from ..registry import check, each_target, once

_CHURN = 60.0
_ENOUGH_OF_THE_ROOM = 0.8


@check("settings.usable", of=each_target)
def usable(case: Case, target: Target) -> Judgement | None:
    """Settings that cannot be used."""
    problem = target.problem
    if problem is None:
        return None
    return wrong(
        str(problem).partition(": ")[0], "the pool cannot be made", problem.cure or str(problem)
    )


@check("settings.pool", "slow", "pool limit", of=each_target)
def pool(case: Case, target: Target) -> Judgement | None:
    """Is there a pool, and is it one of ours?"""
    if target.problem is not None:
        return None
    if target.is_ours:
        return ok(f"a geventpool of up to {target.most:g}")
    if target.given.get("has_ignored_pool"):
        return look(
            f"DATABASES[{target.name!r}] has a POOL, but its ENGINE {target.given['engine']!r} has none",
            "the settings are for nobody",
            "ENGINE = 'geventpool.django.mysql', '.postgresql', '.postgis' or '.mysql_gis'",
        )
    if target.config is None:
        return look(
            f"no pool: {target.pool}",
            "each use connects anew, and nothing bounds how many connect at once",
            "see what geventpool migrate proposes",
        )
    return look(
        f"{target.pool} of up to {target.most:g}",
        "waiting callers are not served in turn, killed ones leave connections and queries behind",
        "see what geventpool migrate proposes",
    )


@check("settings.cap", "too many connections", "memory", of=each_target)
def cap(case: Case, target: Target) -> Judgement | None:
    """A pool without a limit."""
    config = target.config
    if config is None or config.max_size != math.inf:
        return None
    return look(
        f"{target.setting('max_size')} is infinite: the pool has no limit",
        "a burst opens as many connections as there are callers, until the server refuses",
        f"give a {target.setting('max_size')}; geventpool advise computes one",
    )


@check("settings.timeout", "slow", "pool limit", of=each_target)
def timeout(case: Case, target: Target) -> Judgement | None:
    """How long a caller waits, against the patience of those who wait for him."""
    config, patience = target.config, case.deployment.timeout
    if config is None:
        return None
    name = target.setting("timeout")
    if config.timeout is None or config.timeout == math.inf:
        return look(
            f"{name} is none: callers wait for ever",
            "when the database stands still, so does each request, and nothing says why",
            f"give {name} a few seconds less than the web server's or the proxy's own",
        )
    if patience and config.timeout > patience:
        return look(
            f"{name} is {config.timeout:g} s, gunicorn's timeout {patience:g} s",
            "the web server has given up when the pool does, and its error is seen by nobody",
            f"set {name} to less than {patience:g}",
        )
    return ok(f"{name} is {config.timeout:g} s")


@check("settings.connect_timeout", "slow", of=each_target)
def connect_timeout(case: Case, target: Target) -> Judgement | None:
    """An attempt to connect that may take longer than its caller waits."""
    config = target.config
    if config is None or not target.is_ours or not config.timeout:
        return None
    if config.connect_timeout <= config.timeout:
        return ok(f"{target.setting('connect_timeout')} is {config.connect_timeout:g} s")
    return look(
        f"{target.setting('connect_timeout')} is {config.connect_timeout:g} s, "
        f"{target.setting('timeout')} {config.timeout:g} s",
        "a server that does not answer is given up by callers long before the pool tries again",
        f"set {target.setting('connect_timeout')} to less than {target.setting('timeout')}",
    )


@check("settings.min_idle", "too many connections", "memory", of=each_target)
def min_idle(case: Case, target: Target) -> Judgement | None:
    """What all processes keep open for ever, against the server's room."""
    config = target.config
    if config is None or not target.is_ours:
        return None
    server = case.look_at(target)
    if server.error is not None or not server.database:
        return None
    kept = config.min_idle * case.deployment.processes
    measured = f"{kept} connections are kept open by {case.deployment.tell()}"
    if kept <= _ENOUGH_OF_THE_ROOM * server.room or config.min_idle <= 1:
        return ok(measured)
    return wrong(
        f"{measured}, and the server has room for {server.room}",
        "whatever the load is, nearly nothing is left for anybody else",
        f"lower {target.setting('min_idle')} from {config.min_idle} to 1: the pool keeps what it needs",
    )


@check("settings.recycle", "slow", of=each_target)
def recycle(case: Case, target: Target) -> Judgement | None:
    """An age so low that connections are opened all the time."""
    config = target.config
    if config is None:
        return None
    name = target.setting("recycle")
    if config.lifetime >= _CHURN:
        told = "never" if config.lifetime == math.inf else f"{config.lifetime:g} s"
        return ok(f"{name}: {told}")
    return look(
        f"{name} is {config.lifetime:g} s",
        "each connection is closed and opened anew within a minute, whatever the load",
        f"leave {name} out: a connection that the server closes is seen at once",
    )


@check("settings.ping", "slow", of=each_target)
def ping(case: Case, target: Target) -> Judgement | None:
    """A round trip at each checkout, which tells nothing that the socket does not."""
    config = target.config
    if config is None or not target.is_ours or case.driver(target) == "sqlite3":
        return None
    if config.sure_for(is_watched=True) > 0 and not target.given.get("django_pre_ping"):
        return ok("a warm connection is lent without a ping")
    name = target.setting(
        "django_pre_ping" if target.given.get("django_pre_ping") else "ping_after"
    )
    return look(
        f"{name} has each checkout ask the server",
        "a round trip for each request; the hub tells at once which connections have hung up",
        f"leave {name} out",
    )


@check("settings.cancel", "memory", "slow", of=each_target)
def cancel(case: Case, target: Target) -> Judgement | None:
    """Queries that nobody waits for go on."""
    config = target.config
    if config is None or not target.is_ours or config.cancel_deadline > 0:
        return None
    return look(
        f"{target.setting('cancel_deadline')} is 0",
        "a query whose caller was killed or timed out runs on, beside those of the pool's new ones",
        f"leave {target.setting('cancel_deadline')} out",
    )


@check("settings.reset", "lost changes", "deadlock", of=each_target)
def reset(case: Case, target: Target) -> Judgement | None:
    """A returned connection that keeps its transaction."""
    config = target.config
    if config is None:
        return None
    name = target.setting("reset_on_return")
    if config.reset_on_return is not None:
        return ok(f"{name} is {config.reset_on_return}")
    return look(
        f"{name} is None",
        "what one request has left open or locked, the next one goes on with",
        f"leave {name} out: a rollback is sent only where it is needed",
    )


@check("settings.reclaim", "memory", "pool limit", of=each_target)
def reclaim(case: Case, target: Target) -> Judgement | None:
    """Connections of greenlets that have ended are only reported."""
    config = target.config
    if config is None or not target.is_ours or config.reclaim_after is not None:
        return None
    if case.driver(target) == "sqlite3":
        return None  # a database in memory is its connection
    return look(
        f"{target.setting('reclaim_after')} is None",
        "what a greenlet took and never gave back stays taken when it has ended",
        f"leave {target.setting('reclaim_after')} out",
    )


@check("settings.conn_max_age", "pool limit", "too many connections", of=each_target)
def conn_max_age(case: Case, target: Target) -> Judgement | None:
    """Django's own way to keep connections, beside a pool."""
    age = target.given.get("CONN_MAX_AGE", 0)
    if age == 0 or not target.is_ours:
        return None
    return look(
        f"DATABASES[{target.name!r}]['CONN_MAX_AGE'] is {age!r}",
        "a greenlet then keeps its connection between two requests, when others could use it",
        "leave it out (0): giving a connection back costs no round trip, and it stays open",
    )


@check("settings.several_pools", "too many connections", of=once)
def several_pools(case: Case, _: object) -> Judgement | None:
    """Several pools of one database: each has a cap, and idle connections, of its own."""
    counted = Counter(one.address for one in case.targets if case.driver(one) != "sqlite3")
    several = {address: many for address, many in counted.items() if many > 1}
    if not several:
        return None
    (host, port, database), many = max(several.items(), key=lambda item: item[1])
    return look(
        f"{many} pools of the same database ({database} at {host}:{port})",
        "none can use what another one has idle, and their caps add up",
        "use one engine for it, or lower the caps so that their sum fits",
    )
