"""Greenlets that hold a connection each, and want a second."""

from __future__ import annotations

import gevent
import gevent.event

from . import books
from .base import OURS, Context, Row, Scenario

MAX_SIZE = 5
PEERS_TIMEOUT = 3


def run(context: Context) -> None:
    settings = {} if context.pool == OURS else {"timeout": PEERS_TIMEOUT}
    if settings:
        context.notes.append(f"timeout={PEERS_TIMEOUT} instead of 30, to save time")
    pool = context.make_pool(MAX_SIZE, **settings)
    books.warm_up(pool, MAX_SIZE)
    everybody_holds = gevent.event.Event()
    errors: list[tuple[float, BaseException]] = []
    holding = 0
    began = 0.0

    def hold_and_want_another() -> None:
        nonlocal holding, began
        try:
            with pool.connection():
                holding += 1
                if holding == MAX_SIZE:
                    began = books.now()
                    everybody_holds.set()
                everybody_holds.wait()
                with pool.connection() as second:
                    second.query("select 1")
        except Exception as error:
            errors.append((books.now() - began, error))

    names = [f"nests-{place}" for place in range(MAX_SIZE)]
    greenlets = [gevent.spawn(hold_and_want_another) for _ in range(MAX_SIZE)]
    for greenlet, name in zip(greenlets, names, strict=True):
        greenlet.name = name
    gevent.joinall(greenlets, timeout=PEERS_TIMEOUT + 4)
    stuck = sum(not one.dead for one in greenlets)
    first, error = errors[0] if errors else (float("inf"), None)
    named = sum(name in str(error) for name in names)
    stacks = str(error).count("in hold_and_want_another")
    context.figures.update(
        {
            "seconds to the first error": round(first, 3) if errors else "never",
            "error": type(error).__name__,
            "holders named": named,
            "holders' own code in the stacks": stacks,
            "greenlets with an error": len(errors),
            "greenlets stuck": stuck,
        }
    )
    context.expect(bool(errors), "stuck for ever: no error")
    # A matter of fact, not of speed: it comes at once, or when the time-out is over.
    context.expect(
        not errors or first < 1, f"the error comes only after the timeout, {first:.1f} s"
    )
    context.expect(named >= MAX_SIZE, f"names {named} of {MAX_SIZE} holders")
    context.expect(
        stacks >= MAX_SIZE,
        f"shows for {stacks} of {MAX_SIZE} holders where in their own code they wait",
    )
    context.expect(not stuck, f"{stuck} greenlets are stuck")


SCENARIO = Scenario(
    name="deadlock",
    title="Deadlock",
    about=(
        f"{MAX_SIZE} greenlets each hold one of {MAX_SIZE} connections and want a second one. The error "
        "comes at once, not when a timeout is over, and names all holders with their stacks; nobody is "
        f"stuck. (The peers' timeout is set to {PEERS_TIMEOUT} s instead of 30 s to save time.)"
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"),),
    limit=30,
)
