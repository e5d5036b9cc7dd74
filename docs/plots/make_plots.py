"""Draws the plots of docs/sizing.md.

    python docs/plots/make_plots.py            (needs matplotlib and scipy; takes a minute)

Everything is seeded: the same source gives the same figures.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import poisson as reference

from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson
from geventpool.sizing.levels import TIMEOUTS, Adaptive
from geventpool.sizing.poisson import level_for, mean_gap

HERE = Path(__file__).parent
COLOURS = {"adaptive": "tab:blue", "poisson": "tab:orange", "fixed": "tab:green"}
EVER = 10**6

Trace = list[tuple[float, float]]  # when a connection is asked for, how long it is held
Events = list[tuple[float, bool]]  # when use changes, and whether it rises


@dataclass
class Replay:
    """What a LIFO pool did with a trace."""

    opened: int = 0
    idle_seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)


def events_of(trace: Trace) -> Events:
    """Rises and falls in order; a return serves a request of the same instant."""
    return sorted([(t, True) for t, _ in trace] + [(t + hold, False) for t, hold in trace])


def replay(events: Events, policy: SizingPolicy, after: float = 0.0, min_idle: int = 0) -> Replay:
    """A LIFO pool without a cap and with instant connects; the cleaner sleeps until its timer.

    Args:
        events: what happens.
        policy: when to close.
        after: seconds of silence after the last event that count.
        min_idle: never close while the pool is no larger.
    """
    did = Replay()
    idle: list[float] = []
    in_use, timer, end = 0, math.inf, events[-1][0] + after

    def note(now: float) -> None:
        did.times.append(now)
        did.in_use.append(in_use)
        did.held.append(in_use + len(idle))

    def sweep(now: float) -> float:
        while idle and in_use + len(idle) > min_idle:
            due = policy.closes_at(now, in_use + len(idle), idle[0])
            if due > now:
                return due
            did.idle_seconds += now - idle.pop(0)
            note(now)
        return math.inf

    for now, is_rise in [*events, (end, None)]:
        while timer <= now:
            timer = sweep(timer)
        if is_rise is None:
            break
        if is_rise:
            policy.requested(now)
            if idle:
                did.idle_seconds += now - idle.pop()
            else:
                did.opened += 1
                timer = math.inf  # the size has changed: ask again at the next return
            in_use += 1
            policy.rose(now, in_use)
        else:
            in_use -= 1
            policy.fell(now, in_use)
            idle.append(now)
            if timer == math.inf or in_use == 0:
                timer = sweep(now)
        note(now)
    did.idle_seconds += sum(end - since for since in idle)
    note(end)
    return did


def load(
    rng: random.Random, rate: Callable[[float], float], top: float, end: float, hold: float
) -> Trace:
    """Poisson arrivals of a changing rate (at most `top`), exponential holds."""
    now, trace = 0.0, []
    while (now := now + rng.expovariate(top)) < end:
        if rng.random() * top < rate(now):
            trace.append((now, rng.expovariate(1 / hold)))
    return trace


def save(name: str) -> None:
    """Writes the current figure."""
    plt.tight_layout()
    plt.savefig(HERE / name, dpi=110, metadata={"Software": None})
    plt.close()
    print(f"wrote {HERE / name}", file=sys.stderr)


def plot_levels() -> None:
    """The Poisson level against the mean, for several rates, and SciPy's quantile."""
    means = np.linspace(0.02, 20, 1000)
    plt.figure(figsize=(8, 4.5))
    for index, rate in enumerate((0.2, 2.0, 20.0, 200.0)):
        chance = 1 / max(2.0, 5.0 * rate)
        levels = [level_for(mean, chance) for mean in means]
        plt.step(means, levels, color=f"C{index}", label=f"{rate:g} checkouts/s")
        plt.step(means, reference.ppf(1 - chance, means), ":", color=f"C{index}", linewidth=1)
    plt.plot(means, means, color="grey", linewidth=1, label="the mean itself")
    plt.plot([], [], ":", color="grey", label="scipy.stats.poisson.ppf")
    plt.xlabel("mean in use")
    plt.ylabel("connections")
    plt.title("Level of the poisson policy, open_interval = 5 s")
    plt.legend()
    plt.grid(alpha=0.3)
    save("poisson_level.png")


def plot_silence() -> None:
    """The Poisson level after traffic has stopped, with none and with three still held."""
    plt.figure(figsize=(8, 4.5))
    for colour, rate in (("C0", 20.0), ("C1", 200.0)):
        for held, style in ((0, "-"), (3, "--")):
            policy = poisson()
            rng = random.Random(f"{rate} {held}")
            trace = load(rng, lambda t, r=rate: r, rate, 600, 20 / rate)  # type: ignore[misc]
            end, in_use = 0.0, 0
            for now, is_rise in events_of(trace):
                if now > 600:
                    break
                end, in_use = now, in_use + (1 if is_rise else -1)
                if is_rise:
                    policy.requested(now)
                    policy.rose(now, in_use)
                else:
                    policy.fell(now, in_use)
            policy.fell(end, held)
            times = np.linspace(0, 900, 3601)
            levels = [policy.demand(end + float(time)).level for time in times]
            label = f"{rate:g} checkouts/s before, {held or 'none'} still in use"
            plt.step(times, levels, style, color=colour, label=label)
    plt.xlabel("seconds of silence after ten minutes with 20 in use on average")
    plt.ylabel("level")
    plt.title("The level of the poisson policy decays by itself")
    plt.legend()
    plt.grid(alpha=0.3)
    save("silence.png")


def plot_timeouts() -> None:
    """What each level has learned after two hours of a steady load, beside its mean gap."""
    breakeven, rate, mean = 30.0, 20.0, 20.0
    policy = Adaptive(breakeven, 60.0)
    trace = load(random.Random("timeouts"), lambda t: rate, rate, 7200, mean / rate)
    end = 0.0
    in_use = 0
    for end, is_rise in events_of(trace):
        in_use += 1 if is_rise else -1
        if is_rise:
            policy.requested(end)
            policy.rose(end, in_use)
        else:
            policy.fell(end, in_use)
    levels = range(1, 46)
    learned = [
        # While traffic goes on: `closes_at` alone would say what is due if it stopped now.
        breakeven * TIMEOUTS[policy._gaps.least(level, 0, policy._expected(end, level))]
        for level in levels
    ]
    silent = [policy.closes_at(end, level, end) - end for level in levels]
    gaps = [mean_gap(level, mean, rate) for level in levels]
    plt.figure(figsize=(8, 4.5))
    plt.step(levels, learned, where="mid", color="tab:blue", label="timeout after two hours")
    plt.step(levels, silent, "--", where="mid", color="tab:cyan", label="if traffic stops now")
    plt.plot(levels, gaps, ".", color="grey", label="mean gap between two uses (Erlang B)")
    plt.axhline(breakeven, color="tab:red", linewidth=1, label="break-even C")
    plt.axvline(mean, color="grey", linewidth=1, linestyle=":", label="mean in use")
    plt.yscale("log", base=2)
    plt.ylim(breakeven / 64, breakeven * 128)
    plt.yticks([breakeven * 2.0**p for p in range(-5, 8)])
    plt.gca().yaxis.set_major_formatter(lambda y, _: f"{y:.3g} s" if y < 100 else f"{y:,.0f} s")
    plt.xlabel("level (the n-th connection of a LIFO pool)")
    plt.title("Idle timeout by level: 20 checkouts/s, each held for 1 s on average, C = 30 s")
    plt.legend(loc="upper left")
    plt.grid(alpha=0.3)
    save("timeouts.png")


def plot_burst() -> None:
    """Two bursts over a small base load, then silence: what each policy holds."""

    def rate(t: float) -> float:
        return 60.0 if 300 <= t < 330 or 420 <= t < 450 else 3.0

    events = events_of(load(random.Random("burst"), rate, 60.0, 900, 0.4))
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, sharey=True)
    policies = {"adaptive": adaptive(), "poisson": poisson(), "fixed": fixed(max_size=60)}
    for axis, (name, policy) in zip(axes, policies.items(), strict=True):
        did = replay(events, policy, after=900.0, min_idle=1)
        label = f"{policy!r}: {did.opened} opened, {did.idle_seconds:,.0f} s idle"
        axis.step(did.times, did.held, where="post", color=COLOURS[name], label=label)
        axis.fill_between(did.times, did.in_use, step="post", color="lightgrey", label="in use")
        axis.legend(loc="upper right", framealpha=1.0)
        axis.set_ylabel("connections")
        axis.set_ylim(-2, 64)
        axis.grid(alpha=0.3)
    axes[0].set_title("Two bursts, a quiet while, silence from 900 s on: connections held")
    axes[-1].set_xlabel("seconds")
    figure.align_ylabels()
    save("burst.png")


def main() -> None:
    """Draws everything."""
    plot_levels()
    plot_silence()
    plot_timeouts()
    plot_burst()


if __name__ == "__main__":
    main()
