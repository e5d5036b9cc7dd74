"""Snapshots as text: for `geventpool.observe.report()` and `geventpool top --once`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import printable

_SHOWN = 10


def tell(snapshots: Sequence[Mapping[str, Any]]) -> str:
    """What happens in processes, worst first. Control characters are left out."""
    if not snapshots:
        return "No process publishes what its pools do: call geventpool.observe.publish() there.\n"
    lines = [line for said in snapshots for line in _process(said)]
    return "\n".join(map(printable, lines)) + "\n"


def seconds(value: float) -> str:
    """A duration in few characters: `1.25 s`, `3.4 ms`, `120 µs`."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def by_name(counts: Mapping[str, int]) -> str:
    """`saturated 3, connecting 1`, the most first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in ordered) or "none"


def holder_line(holder: Mapping[str, Any]) -> str:
    """One holder, with the line of the program that took the connection."""
    transaction = ""
    if holder["in_transaction_for"] is not None:
        transaction = f", in a transaction for {seconds(holder['in_transaction_for'])}"
    idle = f", nothing done for {seconds(holder['idle_for'])}" if holder["idle_for"] else ""
    return (
        f"connection {holder['connection']}: {holder['state']}, held for {seconds(holder['held_for'])}"
        f"{transaction}{idle}, {holder['queries']} queries, by {holder['owner']}"
    )


def now_line(holder: Mapping[str, Any]) -> str:
    """Where a holder's greenlet is now; empty if that is not known."""
    if not holder["now_at"]:
        return ""
    file, number, function = holder["now_at"][-1]
    return f"{file}:{number} in {function}"


def query_line(query: Mapping[str, Any]) -> str:
    """One fingerprint in figures."""
    return (
        f"{query['calls']} calls, {query['errors']} errors, {query['rows']} rows, "
        f"total {seconds(query['total'])}, mean {seconds(query['mean'])}, p50 {seconds(query['p50'])}, "
        f"p95 {seconds(query['p95'])}, p99 {seconds(query['p99'])}, max {seconds(query['longest'])}"
    )


def site_line(site: Mapping[str, Any]) -> str:
    """One call site in figures."""
    return (
        f"busy {site['busy_share']:.0%} of {seconds(site['held'])} held, {site['count']} times, "
        f"longest {seconds(site['longest'])}: {site['site']}"
    )


def slowest(queries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The slowest on average first."""
    return sorted(queries, key=lambda query: -float(query["mean"]))[:_SHOWN]


def most_common(queries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The most common first."""
    return sorted(queries, key=lambda query: -int(query["calls"]))[:_SHOWN]


def _process(said: Mapping[str, Any]) -> Iterator[str]:
    yield f"process {said['pid']} ({said['program']})"
    hub = said["hub"]
    if hub is not None:
        yield (
            f"  hub: blocked {hub['blocks']} times for more than {seconds(hub['threshold'])}, "
            f"{seconds(hub['blocked_seconds'])} in sum"
        )
        for name in ("longest", "last"):
            block = hub[name]
            if block is not None:
                yield f"    {name}: {seconds(block['seconds'])} at {block['site']}"
    for pool in said["pools"]:
        yield from (f"  {line}" for line in _pool(pool))


def _pool(pool: Mapping[str, Any]) -> Iterator[str]:
    size = "no limit" if pool["max_size"] is None else f"max {pool['max_size']:g}"
    yield (
        f"pool {pool['name']}: {size}, idle {pool['idle']}, in use {pool['in_use']}, "
        f"opening {pool['opening']}, closing {pool['closing']}, waiting {pool['waiting']}"
    )
    yield (
        f"  level {pool['level']} for a demand of {pool['mean_in_use']:.2f} in use, "
        f"{pool['checkouts_per_second']:.1f} checkouts/s; {pool['checkouts']} checkouts, "
        f"{pool['opened']} opened, closed: {by_name(pool['closed'])}"
    )
    yield (
        f"  waits: {by_name(pool['wait_reasons'])}; {seconds(pool['wait_seconds'])} in sum; "
        f"timeouts: {by_name(pool['timeout_reasons'])}; owners ended: {pool['owners_ended']}"
    )
    observed = pool["observed"]
    if observed is None:
        yield "  not observed: geventpool.observe.attach(engine) shows who holds what, and which queries"
        return
    if observed["warnings"]:
        yield f"  warnings: {by_name(observed['warnings'])}; the last:"
        for warning in reversed(observed["recent"][-_SHOWN:]):
            at = time.strftime("%H:%M:%S", time.localtime(warning["at"]))
            yield f"    {at} {warning['what']}: {warning['site']}"
    yield from _holders(observed["holders"])
    if observed["queries"] is not None:
        yield from _queries(observed["queries"])
    if observed["sites"]:
        yield "  call sites, by the time for which they held connections while no query ran:"
        yield from (f"    {site_line(site)}" for site in observed["sites"][:_SHOWN])


def _holders(holders: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if holders:
        yield "  holders, longest first:"
    for holder in holders:
        yield f"    {holder_line(holder)}"
        if holder["site"]:
            yield f"      taken at {holder['site']}"
        if holder["query"]:
            sent = f", sent at {holder['execute_site']}" if holder["execute_site"] else ""
            yield f"      last query: {holder['query']}{sent}"
        if now_line(holder):
            yield f"      now at {now_line(holder)}"


def _queries(queries: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  queries: {queries['fingerprints']} different ones"
        + (f", {queries['evicted']} evicted" if queries["evicted"] else "")
    )
    for title, ordered in (("slowest", slowest), ("most common", most_common)):
        yield f"  {title}:"
        for query in ordered(queries["top"])[:5]:
            yield f"    {query_line(query)}"
            yield f"      {query['query']}"
            yield f"      sent at {query['site']}"
