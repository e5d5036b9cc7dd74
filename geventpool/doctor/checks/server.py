"""The database server: can it be reached, has it room, and what does it do to connections?"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..case import Case, Target
from ..finding import Judgement, look, ok, unseen, wrong
from ..registry import check, each_target
from ..server import ACTIVE, IN_TRANSACTION, Server

_NEARLY_FULL = 0.8
_SHORT = 60.0
"""Seconds of idling after which a server that closes connections closes what is needed again."""
_TOO_LONG_IN_TRANSACTION = 30.0
_LONG_QUERY = 60.0
_PATIENCE = 5.0
"""Seconds below which a limit on idling in a transaction meets healthy programs, too."""

_CURES = (
    (("access denied", "authentication failed", "no password"), "give the right user and password"),
    (
        ("unknown database", "does not exist"),
        "create the database or the user, or correct its name",
    ),
    (
        ("too many", "remaining connection slots", "no more connections"),
        "see server.max_connections",
    ),
    (
        ("name or service", "not known", "temporary failure", "getaddrinfo"),
        "correct the host's name",
    ),
    (
        ("refused", "can't connect", "no route", "timed out"),
        "start the server, or open the way to it",
    ),
)


def each(case: Case) -> Iterable[tuple[str, tuple[Target, Server]]]:
    """The targets that can be reached and asked, each with what was measured."""
    for target in case.targets:
        server = case.look_at(target)
        if server.error is None and server.database:
            yield target.name, (target, server)


Pair = tuple[Target, Server]


@check("server.reached", "gone away", "too many connections", of=each_target)
def reached(case: Case, target: Target) -> Judgement:
    """Connects as the application does."""
    server = case.look_at(target)
    if server.error is None:
        return ok(f"connected to {server.version or target.driver}")
    told = case.hide(server.error)
    cures = (cure for words, cure in _CURES if any(word in told.lower() for word in words))
    return wrong(
        f"cannot be reached or asked: {type(server.error).__name__}: {told}",
        "so nothing else can be told of it",
        next(cures, "look at the server and at the address"),
    )


@check("server.rights", of=each)
def rights(case: Case, pair: Pair) -> Judgement | None:
    """What this user may not see."""
    _, server = pair
    if not server.unseen:
        return None
    return unseen(f"this user may not see {'; '.join(server.unseen)}", "run it as one who may")


@check("server.max_connections", "too many connections", "pool limit", of=each)
def max_connections(case: Case, pair: Pair) -> Judgement:
    """All processes' pools together against what the server allows."""
    target, server = pair
    room, wanted = server.room, case.wanted(target)
    each_most = sum(one.most for one in case.sharing(target))
    told = "without limit" if wanted == math.inf else f"up to {wanted:g}"
    measured = (
        f"the pools may open {told} ({each_most:g} in each of {case.deployment.tell()}), "
        f"and the server has room for {room}"
    )
    if wanted <= room:
        return ok(measured)
    share = max(1, room * 4 // 5 // case.deployment.processes // len(case.sharing(target)))
    return wrong(
        measured,
        "where it has no room callers wait for a return, and other programs get no connection",
        f"lower {target.setting('max_size')} to {share}, or raise the server's max_connections",
    )


@check("server.user_limit", "too many connections", of=each)
def user_limit(case: Case, pair: Pair) -> Judgement | None:
    """A limit of the user's or the database's own."""
    target, server = pair
    if not server.user_limit:
        return None
    wanted = case.wanted(target)
    measured = (
        f"this user or database may have {server.user_limit} connections, {wanted:g} are wanted"
    )
    if wanted <= server.user_limit:
        return ok(measured)
    return wrong(
        measured,
        "the server refuses those beyond, though max_connections is not reached",
        "raise MAX_USER_CONNECTIONS of the account (MySQL) or CONNECTION LIMIT of the role or database "
        f"(PostgreSQL), or lower {target.setting('max_size')}",
    )


@check("server.nearly_full", "too many connections", of=each)
def nearly_full(case: Case, pair: Pair) -> Judgement:
    """What is connected now."""
    _, server = pair
    many = len(server.sessions)
    by_user: dict[str, int] = {}
    for one in server.sessions:
        by_user[one.user] = by_user.get(one.user, 0) + 1
    users = ", ".join(f"{user} {count}" for user, count in sorted(by_user.items())[:5])
    measured = f"{many} of {server.room} connections are open" + (f" ({users})" if users else "")
    if many < _NEARLY_FULL * server.room:
        return ok(measured)
    return look(
        measured,
        "soon the server refuses connections, of whatever program",
        "find who keeps them in the list above, and lower the caps of its pools",
    )


@check("server.idle_timeout", "gone away", of=each)
def idle_timeout(case: Case, pair: Pair) -> Judgement:
    """How long the server lets a connection idle, and whether the pool notices its end."""
    target, server = pair
    name = "wait_timeout" if server.database == "mysql" else "idle_session_timeout"
    limit = server.number(name)
    if not limit:
        return ok("the server closes no idle connection")
    measured = f"the server closes connections that idle for {limit:g} s ({name})"
    if limit < _SHORT:
        return look(
            measured,
            "those that a pool keeps are gone when they are wanted, and have to be opened anew",
            f"raise {name}; a geventpool lets go of idle connections by itself",
        )
    config = target.config
    if target.is_ours or config is None or config.pre_ping or config.lifetime < limit:
        return ok(measured)
    return wrong(
        f"{measured}, and {target.pool} neither looks at a connection before it lends it nor replaces "
        "it in time",
        "after a quiet hour requests fail with 'server has gone away'",
        f"use a geventpool, which sees it; or set {target.setting('pre_ping')}, or "
        f"{target.setting('recycle')} below {limit:g}",
    )


@check("server.transaction_timeout", "gone away", of=each)
def transaction_timeout(case: Case, pair: Pair) -> Judgement | None:
    """A limit on idling in a transaction that healthy programs meet."""
    _, server = pair
    is_mysql = server.database == "mysql"
    name = "idle_transaction_timeout" if is_mysql else "idle_in_transaction_session_timeout"
    limit = server.number(name)
    if not limit or limit >= _PATIENCE:
        return ok(f"{name} is {limit:g} s" if limit else f"{name} is off")
    return look(
        f"{name} is {limit:g} s",
        "a request that computes or calls somebody else within a transaction loses its connection",
        f"raise it to some {_PATIENCE:g} s or more, and keep calls to others out of transactions",
    )


@check("server.statement_timeout", "gone away", of=each)
def statement_timeout(case: Case, pair: Pair) -> Judgement | None:
    """A limit on statements that ordinary ones meet."""
    _, server = pair
    name = "max_statement_time" if server.database == "mysql" else "statement_timeout"
    limit = server.number(name)
    if not limit or limit >= 1.0:
        return ok(f"{name} is {limit:g} s" if limit else f"{name} is off")
    return look(
        f"{name} is {limit * 1e3:g} ms",
        "ordinary statements are cancelled whenever the server is busy",
        "raise it to a second or more; a caller's own gevent.Timeout cancels its query, too",
    )


@check("server.idle_in_transaction", "deadlock", "slow", "pool limit", of=each)
def idle_in_transaction(case: Case, pair: Pair) -> Judgement:
    """Sessions that hold a transaction, and its locks, and do nothing."""
    _, server = pair
    found = [
        one
        for one in server.sessions
        if one.state == IN_TRANSACTION and one.seconds >= _TOO_LONG_IN_TRANSACTION
    ]
    if not found:
        return ok(f"none is idle in a transaction for {_TOO_LONG_IN_TRANSACTION:g} s")
    longest = max(found, key=lambda one: one.seconds)
    return wrong(
        f"{len(found)} are idle in a transaction, session {longest.id} of {longest.user} for "
        f"{longest.seconds:.0f} s",
        "they keep their locks, old rows cannot be cleaned up, and their pool's places are taken",
        "commit or roll back before anything else is waited for; geventpool.observe.attach names the "
        "line of the program",
    )


@check("server.locks", "deadlock", "slow", of=each)
def locks(case: Case, pair: Pair) -> Judgement:
    """Sessions that wait for another one's lock."""
    _, server = pair
    found = [one for one in server.sessions if one.is_locked]
    if not found:
        return ok("no session waits for a lock")
    longest = max(found, key=lambda one: one.seconds)
    return look(
        f"{len(found)} wait for a lock, session {longest.id} of {longest.user} for "
        f"{longest.seconds:.0f} s",
        "each keeps a connection, and so a place in a pool, while it waits",
        "find who holds it (SHOW ENGINE INNODB STATUS; pg_blocking_pids), and shorten that transaction",
    )


@check("server.long_queries", "slow", "pool limit", of=each)
def long_queries(case: Case, pair: Pair) -> Judgement:
    """Queries that run for a long time now."""
    _, server = pair
    found = [one for one in server.sessions if one.state == ACTIVE and not one.is_locked]
    found = [one for one in found if one.seconds >= _LONG_QUERY]
    if not found:
        return ok(f"no query runs for {_LONG_QUERY:g} s")
    longest = max(found, key=lambda one: one.seconds)
    return look(
        f"{len(found)} queries run for {_LONG_QUERY:g} s or more, session {longest.id} of "
        f"{longest.user} for {longest.seconds:.0f} s",
        "each keeps a connection for as long",
        "look at its plan (EXPLAIN), or have it run by a worker with a pool of its own",
    )


@check("server.read_only", "lost changes", of=each)
def read_only(case: Case, pair: Pair) -> Judgement:
    """A standby, or a server that was told to take no writes."""
    _, server = pair
    if not server.is_read_only:
        return ok("it takes writes")
    return look(
        "the server is read only",
        "writes fail; after a failover it may be the former primary",
        "if the program writes, let its address lead to the primary",
    )


@check("server.thread_cache", "slow", of=each)
def thread_cache(case: Case, pair: Pair) -> Judgement | None:
    """MySQL makes a thread for each connect, unless it keeps some."""
    _, server = pair
    if server.database != "mysql" or "thread_cache_size" not in server.variables:
        return None
    size = server.number("thread_cache_size")
    if size:
        return ok(f"thread_cache_size is {size:g}")
    return look(
        "thread_cache_size is 0",
        "the server makes a thread for each connect and ends it afterwards",
        "set thread_cache_size to 16 or more",
    )


@check("server.proxy", "lost changes", "gone away", of=each)
def proxy(case: Case, pair: Pair) -> Judgement:
    """What stands between the pool and the server, and what that forbids."""
    _, server = pair
    if server.is_pooled_by_transaction:
        return look(
            f"{server.proxy or 'something'} in between gives each transaction another session",
            "what is set in a session (SET, temporary tables, LISTEN, prepared plans, advisory locks) "
            "is lost, or met by others",
            "keep session state out of the program (SET LOCAL), switch off prepared plans "
            "(psycopg: prepare_threshold=None), and size this pool for clients of the proxy",
        )
    if server.proxy:
        return ok(f"{server.proxy} is in between, and keeps a session for each connection")
    return ok("no proxy is in between, as far as can be told")
