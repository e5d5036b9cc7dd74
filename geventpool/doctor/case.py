"""What is examined: a program's process, its databases, where it runs, and what its pools publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import PoolConfig
from ..errors import ConfigError
from ..observe.snapshot import add_up
from .finding import harmless
from .server import Server, measure


@dataclass(frozen=True)
class Process:
    """How a program stands to monkey-patching, once its application has been loaded.

    Attributes:
        is_loaded: the application was loaded here; else nothing of this is known.
        patched_by: who has monkey-patched it: `"the program"`, `"its server"`; empty: nobody.
        left_out: modules that were not patched, such as `thread`.
        early: modules that were imported before, and hold on to what was there then.
        shares_django: all greenlets have the same connections of Django's.
    """

    is_loaded: bool = False
    patched_by: str = ""
    left_out: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    shares_django: bool = False


@dataclass(frozen=True)
class Deployment:
    """How many processes there are, and who runs them.

    Attributes:
        workers: processes on each host.
        hosts: how many machines.
        source: where the number of workers is from; empty: nothing tells it.
        worker_class: gunicorn's; `None`: not known.
        timeout: seconds of silence after which a worker is aborted; `None`: not known.
        preload: the application is loaded before the fork.
        patches: the configuration itself monkey-patches.
        max_requests: requests after which a worker is replaced; 0: never.
        worker_connections: greenlets of a worker at most; `None`: not known.
    """

    workers: int = 1
    hosts: int = 1
    source: str = ""
    worker_class: str | None = None
    timeout: float | None = None
    preload: bool = False
    patches: bool = False
    max_requests: int = 0
    worker_connections: int | None = None

    @property
    def processes(self) -> int:
        """Of all hosts."""
        return self.workers * self.hosts

    @property
    def has_greenlets(self) -> bool:
        """Does a worker of this class serve by greenlets, and so patch?"""
        return self.worker_class is not None and "gevent" in self.worker_class.lower()

    def tell(self) -> str:
        """Such as `4 workers x 2 hosts`."""
        return f"{_many(self.workers, 'worker')} x {_many(self.hosts, 'host')}"


@dataclass(frozen=True)
class Target:
    """A database as the application connects to it.

    Attributes:
        name: by which the user knows it: an alias, a bind, or host and database.
        driver: name of the DBAPI's module, such as `pymysql`; empty: only a connection tells.
        address: host, port and database; equal for two pools of the same server and database.
        connect: opens a connection as the application does. May switch greenlets.
        pool: the pool's class, or what is used in its place.
        is_ours: it is a geventpool.
        config: its settings; of another pool, what they would be of ours; `None`: it has no pool.
        where: how a user writes a setting of the pool, `{!r}` or `{}` being its name.
        problem: the settings cannot be used.
        given: what else is configured that checks look at.
        secrets: what may be shown nowhere.
    """

    name: str
    driver: str
    address: tuple[str, str, str]
    connect: Callable[[], Any]
    pool: str
    is_ours: bool
    config: PoolConfig | None
    where: str = "{}"
    problem: ConfigError | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    @property
    def most(self) -> float:
        """Connections that its pool may open in one process; 0: it has none."""
        return 0 if self.config is None else self.config.max_size

    def setting(self, name: str) -> str:
        """A setting as the user writes it."""
        return self.where.format(name)


@dataclass
class Case:
    """All that checks look at.

    Attributes:
        process: the program.
        targets: its databases.
        deployment: where it runs.
        snapshots: what processes publish of their pools.
        blind: why there are none.
    """

    process: Process = field(default_factory=Process)
    targets: list[Target] = field(default_factory=list)
    deployment: Deployment = field(default_factory=Deployment)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    blind: str = ""

    def __post_init__(self) -> None:
        self._servers: dict[int, Server] = {}

    def look_at(self, target: Target) -> Server:
        """What was measured of a target's server: once. Switches greenlets the first time."""
        if id(target) not in self._servers:
            self._servers[id(target)] = measure(target.connect, target.is_ours)
        return self._servers[id(target)]

    def driver(self, target: Target) -> str:
        """The DBAPI's module. Switches greenlets if only a connection can tell."""
        return target.driver or self.look_at(target).driver

    def pools(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The sums of all processes, by the pools' names."""
        return list(add_up(self.snapshots).pools.items())

    def sharing(self, target: Target) -> list[Target]:
        """All targets on its server, itself among them."""
        return [one for one in self.targets if one.address[:2] == target.address[:2]]

    def wanted(self, target: Target) -> float:
        """Connections to its server that all processes together may open."""
        return sum(one.most for one in self.sharing(target)) * self.deployment.processes

    def hide(self, error: object) -> str:
        """A text that is not ours, in a line, without passwords. Its rest is a driver's own."""
        text = str(error).strip().partition("\n")[0]
        for secret in {secret for target in self.targets for secret in target.secrets}:
            text = text.replace(secret, "***")
        return harmless(text)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
