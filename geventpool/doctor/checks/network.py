"""The way to the server: how long it takes, and whether its end is noticed."""

from __future__ import annotations

import math
import socket
import time

from gevent import Timeout

from ..case import Case, Target
from ..finding import Judgement, look, ok, wrong
from ..registry import check, each_server, each_target
from ..server import Server

_FAR = 0.005
"""Seconds of a round trip above which server and program are not in the same place."""
_SLOW_CONNECT = 0.1
_SLOW_NAME = 0.1
_LONGEST_LOOKUP = 5.0
_LONGEST_SILENCE = 300.0
"""Network devices forget connections that say nothing; the most impatient of them after five minutes."""


@check("network.round_trip", "slow", of=each_server)
def round_trip(case: Case, server: Server) -> Judgement:
    """The smallest question, the quickest of nine."""
    measured = f"a round trip takes {server.round_trip * 1e3:.2f} ms"
    if server.round_trip < _FAR:
        return ok(measured)
    return look(
        measured,
        "each statement of a request, and each BEGIN and COMMIT, takes as long",
        "bring program and server into one place, and save round trips (smart reset, no pre-ping)",
    )


@check("network.connect_time", "slow", of=each_server)
def connect_time(case: Case, server: Server) -> Judgement:
    """What a connect takes, the quickest of some."""
    measured = f"a connect takes {server.connect_seconds * 1e3:.1f} ms"
    # A handshake is some round trips; those are told of already.
    if server.connect_seconds < max(_SLOW_CONNECT, 12 * server.round_trip):
        return ok(measured)
    return look(
        measured,
        "who comes while all connections are in use waits for that long",
        "look at the server's name look-ups (MySQL: skip_name_resolve) and its authentication; keep "
        "more connections (min_idle)",
    )


@check("network.name", "slow", of=each_target)
def name(case: Case, target: Target) -> Judgement | None:
    """How long it takes to find out the server's address, which each connect does."""
    host = target.address[0]
    if not host or host.startswith("/") or host.replace(".", "").isdigit() or ":" in host:
        return None
    began = time.perf_counter()
    try:
        with Timeout(_LONGEST_LOOKUP):
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, Timeout):
        return None  # server.reached tells it
    seconds = time.perf_counter() - began
    measured = f"{host} is looked up in {seconds * 1e3:.1f} ms, and has {len(found)} addresses"
    if seconds < _SLOW_NAME:
        return ok(measured)
    return look(
        measured,
        "each connect begins with it",
        "let a cache on this machine answer (systemd-resolved, dnsmasq, nscd)",
    )


@check("network.half_open", "gone away", "slow", of=each_target)
def half_open(case: Case, target: Target) -> Judgement | None:
    """Is a connection that a network device has forgotten found out before it is lent?"""
    config = target.config
    if config is None or case.driver(target) == "sqlite3" or not target.is_ours:
        return None
    after = config.sure_for(is_watched=True)
    if after <= _LONGEST_SILENCE:
        return ok(f"a connection that was idle for {after:g} s is pinged before it is lent")
    told = "never" if after == math.inf else f"only after {after:g} s"
    return wrong(
        f"{target.setting('ping_after')} is {after:g}: an idle connection is {told} pinged",
        "a firewall, NAT or load balancer that has forgotten it leaves no sign, and the next query "
        "waits for minutes",
        f"leave {target.setting('ping_after')} out (60), or set it to less than {_LONGEST_SILENCE:g}",
    )
