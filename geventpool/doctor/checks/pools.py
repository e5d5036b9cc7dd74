"""The pools that run, from what their processes publish: who waits, why, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core import causes
from ...observe.holds import IN_TRANSACTION
from ...observe.text import by_name, seconds
from ..case import Case
from ..finding import Judgement, look, ok, unseen, wrong
from ..registry import check, each_pool, once

_FEW = 0.01
"""The share of callers that may wait, or of connections that may die, without a word."""
_ENOUGH = 20
"""Checkouts below which shares mean nothing."""
_TOO_LONG_IDLE = 5.0
_BUSY = 0.2
_MUCH_HELD = 10.0
_LONG_BLOCK = 0.1
_CHURN = 0.2

Pool = Mapping[str, Any]


@check("pools.published", of=once)
def published(case: Case, _: object) -> Judgement | None:
    """Without it nothing is known of the pools that run."""
    if case.snapshots:
        many = len(case.snapshots)
        return ok(f"{many} process{'es' if many > 1 else ''} publish what the pools do")
    return unseen(
        f"the pools that run: {case.blind or 'no process publishes'}",
        "call geventpool.observe.attach(engine), watch_hub() and publish() in the program",
    )


@check("pools.saturated", "pool limit", "slow", of=each_pool)
def saturated(case: Case, pool: Pool) -> Judgement:
    """Callers wait because all that may be open are in use."""
    waits, checkouts = pool["wait_reasons"].get(causes.SATURATED, 0), pool["checkouts"]
    measured = f"{waits} of {checkouts} callers have waited for a free connection"
    if waits <= _FEW * checkouts or checkouts < _ENOUGH:
        return ok(measured)
    return look(
        f"{measured}; {seconds(pool['wait_seconds'])} in sum, {pool['waiting']} wait now",
        "all connections that may be open are in use",
        "find what holds them longest (geventpool top), or raise max_size: see geventpool advise",
    )


@check("pools.connecting", "slow", of=each_pool)
def connecting(case: Case, pool: Pool) -> Judgement:
    """Callers wait for a connect, though there is room."""
    waits, checkouts = pool["wait_reasons"].get(causes.CONNECTING, 0), pool["checkouts"]
    measured = f"{waits} of {checkouts} callers have waited for a connect"
    if waits <= 10 * _FEW * checkouts or checkouts < _ENOUGH:
        return ok(measured)
    return look(
        measured,
        "the pool lets go of connections that are wanted again soon, or is cold too often",
        "raise min_idle or breakeven, call pool.warm_up(), or see why a connect takes its time",
    )


@check("pools.refused", "pool limit", "deadlock", of=each_pool)
def refused(case: Case, pool: Pool) -> Judgement | None:
    """Callers that got no connection."""
    reasons = {
        why: many
        for why, many in pool["timeout_reasons"].items()
        if why != causes.DEADLOCK and many
    }
    if not reasons:
        return ok("every caller got a connection")
    worst = max(reasons, key=lambda why: reasons[why])
    return wrong(
        f"callers got no connection: {by_name(reasons)}",
        "their requests have failed",
        causes.CURES.get(worst, "take more load off, or allow a longer line (max_waiting)"),
    )


@check("pools.deadlock", "deadlock", "pool limit", of=each_pool)
def deadlock(case: Case, pool: Pool) -> Judgement | None:
    """Greenlets that hold a connection and want another one."""
    many = pool["timeout_reasons"].get(causes.DEADLOCK, 0)
    if not many:
        return None
    return wrong(
        f"{many} times every holder of a connection waited for another one",
        "a request takes a second connection while it holds one, and under load all do",
        "use one connection for each request; the log has the stacks of all who held one",
    )


@check("pools.leaks", "memory", "pool limit", of=each_pool)
def leaks(case: Case, pool: Pool) -> Judgement:
    """Greenlets that have ended while they held a connection."""
    many = pool["owners_ended"]
    if not many:
        return ok("every connection was given back")
    return wrong(
        f"{many} greenlets have ended without giving their connection back",
        "each costs a connect, and its place until it is reclaimed",
        "use 'with engine.connect()' or close() in a finally; the log names the lines that took them",
    )


@check("pools.idle_in_transaction", "deadlock", "pool limit", of=once)
def idle_in_transaction(case: Case, _: object) -> Judgement | None:
    """Lent connections that do nothing in a transaction."""
    found = [
        holder
        for said in case.snapshots
        for pool in said["pools"]
        if pool["observed"] is not None
        for holder in pool["observed"]["holders"]
        if holder["state"] == IN_TRANSACTION and holder["idle_for"] >= _TOO_LONG_IDLE
    ]
    if not found:
        return None
    longest = max(found, key=lambda holder: float(holder["idle_for"]))
    return wrong(
        f"{len(found)} lent connections do nothing in a transaction, one for "
        f"{seconds(longest['idle_for'])}, taken at {longest['site']}",
        "they keep a place in the pool, and their locks on the server",
        "commit or roll back before calling somebody else or computing",
    )


@check("pools.held", "pool limit", "slow", of=once)
def held(case: Case, _: object) -> Judgement | None:
    """Call sites that hold connections while no query runs."""
    found = [
        site
        for said in case.snapshots
        for pool in said["pools"]
        if pool["observed"] is not None
        for site in pool["observed"]["sites"]
        if site["held"] >= _MUCH_HELD and site["busy_share"] < _BUSY
    ]
    if not found:
        return None
    worst = max(found, key=lambda site: float(site["held"]) * (1 - float(site["busy_share"])))
    return look(
        f"busy for {worst['busy_share']:.0%} of the {seconds(worst['held'])} for which connections "
        f"were held: {worst['site']}",
        "the pool has to be larger than the queries alone would need",
        "take the connection later, and give it back before other work is done",
    )


@check("pools.hub", "slow", of=once)
def hub(case: Case, _: object) -> Judgement | None:
    """Something computes or blocks without yielding."""
    hubs = [said["hub"] for said in case.snapshots if said["hub"] is not None]
    if not hubs:
        return None
    longest = [one["longest"] for one in hubs if one["longest"] is not None]
    if not longest or max(block["seconds"] for block in longest) < _LONG_BLOCK:
        return ok("no hub was kept from running for 0.1 s")
    worst = max(longest, key=lambda block: float(block["seconds"]))
    return wrong(
        f"a hub could not run for {seconds(worst['seconds'])}, at {worst['site'] or 'a line unknown'}",
        "no greenlet of the process runs meanwhile, whatever it waits for",
        causes.CURES[causes.HUB_BLOCKED],
    )


@check("pools.open_errors", "too many connections", "gone away", of=each_pool)
def open_errors(case: Case, pool: Pool) -> Judgement:
    """Attempts to connect that failed."""
    failed, opened = pool["open_errors"], pool["opened"]
    measured = f"{failed} of {failed + opened} attempts to connect have failed"
    if failed <= _FEW * (failed + opened):
        return ok(measured)
    return look(
        measured,
        "the server was down, full, or could not be reached",
        "the log has the errors; look at the server's own log for that time",
    )


@check("pools.died", "gone away", of=each_pool)
def died(case: Case, pool: Pool) -> Judgement:
    """Idle connections that the other side has closed."""
    dead, opened = pool["closed"].get(causes.DEAD, 0), pool["opened"]
    measured = f"{dead} of {opened} connections were closed by the other side"
    if dead <= 10 * _FEW * opened:
        return ok(measured)
    return look(
        measured,
        "no request has failed of it, but each has to be opened anew",
        "find who closes them: the server's idle limit, a restart, a proxy or a load balancer",
    )


@check("pools.churn", "slow", of=each_pool)
def churn(case: Case, pool: Pool) -> Judgement:
    """Connections that serve a few callers only."""
    opened, checkouts = pool["opened"], pool["checkouts"]
    measured = f"{opened} connections were opened for {checkouts} checkouts"
    if opened <= _CHURN * checkouts or checkouts < _ENOUGH:
        return ok(measured)
    return look(
        f"{measured}; closed: {by_name(pool['closed'])}",
        "most of what a pool saves is lost",
        "look at why they are closed: recycle, invalidate(), kills in mid-query, or a short breakeven",
    )


@check("pools.abandoned", "memory", "slow", of=each_pool)
def abandoned(case: Case, pool: Pool) -> Judgement | None:
    """Queries that nobody waits for and that could not be ended."""
    failed = pool["cancel_failures"]
    if not failed:
        return None
    return look(
        f"{failed} abandoned queries were not seen to have ended in time",
        "they may go on at the server beside those of new connections",
        "see the log for the reason; a proxy in between hides whose query it is",
    )
