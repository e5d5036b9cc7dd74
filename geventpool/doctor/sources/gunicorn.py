"""gunicorn's configuration, as gunicorn itself puts it together, without gunicorn."""

from __future__ import annotations

import os
import runpy
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gevent.monkey import is_module_patched

from ...errors import ConfigError, without_passwords
from ..case import Deployment

USUAL: Final = "gunicorn.conf.py"
_WORKERS = "WEB_CONCURRENCY"
_ARGUMENTS = "GUNICORN_CMD_ARGS"
_SHORT = {"-w": "workers", "-k": "worker_class", "-t": "timeout", "-c": "config"}
_DEFAULT_TIMEOUT = 30
_DEFAULT_CONNECTIONS = 1000


def read_deployment(
    file: str | None, workers: int | None, hosts: int, environment: Mapping[str, str] = os.environ
) -> Deployment:
    """How many processes there are. Runs gunicorn's configuration file, if one is named.

    Args:
        file: of gunicorn's configuration; `None`: there is none.
        workers: said by the user; wins over all else.
        hosts: said by the user.
        environment: `WEB_CONCURRENCY` and `GUNICORN_CMD_ARGS` are read.

    Raises:
        ConfigError: the file cannot be run.
    """
    in_file, patches = _read_file(file)
    spoken = parse_arguments(shlex.split(environment.get(_ARGUMENTS, "")))
    by_variable = environment.get(_WORKERS, "")
    places = (
        ("--workers", workers),
        (_ARGUMENTS, spoken.get("workers")),
        (file or "", in_file.get("workers")),
        (_WORKERS, by_variable if by_variable.isdigit() and int(by_variable) else None),
    )
    said = ((where, many) for where, many in places if many is not None)
    source, many = next(said, (file or "", 1))
    count = max(1, _whole("workers", many))
    if file is None and not spoken:
        return Deployment(workers=count, hosts=hosts, source=source)
    return _of_gunicorn({**in_file, **spoken}, count, hosts, source, patches)


def _of_gunicorn(
    found: Mapping[str, Any], workers: int, hosts: int, source: str, patches: bool
) -> Deployment:
    """With gunicorn's defaults for what is not set."""
    worker_class = found.get("worker_class", "sync")
    if isinstance(worker_class, type):
        worker_class = f"{worker_class.__module__}.{worker_class.__qualname__}"
    return Deployment(
        workers=workers,
        hosts=hosts,
        source=source,
        worker_class=str(worker_class),
        timeout=_whole("timeout", found.get("timeout", _DEFAULT_TIMEOUT)),
        preload=bool(found.get("preload_app", False)),
        patches=patches,
        max_requests=_whole("max_requests", found.get("max_requests", 0)),
        worker_connections=_whole(
            "worker_connections", found.get("worker_connections", _DEFAULT_CONNECTIONS)
        ),
    )


def _read_file(file: str | None) -> tuple[dict[str, Any], bool]:
    """What a configuration file sets, and whether it monkey-patches."""
    if file is None:
        return {}, False
    path = Path(file)
    if not path.is_file():
        raise ConfigError("gunicorn", file, "there is no such file")
    was_patched = is_module_patched("socket")
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        cure = f"running it raised {type(error).__name__}: {without_passwords(str(error))}"
        raise ConfigError("gunicorn", file, cure) from None
    return found, is_module_patched("socket") and not was_patched


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """Settings among gunicorn's arguments, by the names that its file has."""
    found: dict[str, Any] = {}
    waiting = ""
    for one in arguments:
        if waiting:
            found[waiting], waiting = one, ""
        elif one == "--preload":
            found["preload_app"] = True
        elif one.startswith("--"):
            name, equals, value = one[2:].partition("=")
            name = name.replace("-", "_")
            if equals:
                found[name] = value
            else:
                waiting = name
        elif one[:2] in _SHORT:
            name = _SHORT[one[:2]]
            if one[2:]:
                found[name] = one[2:].lstrip("=")
            else:
                waiting = name
    return found


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ConfigError(name, value, "give a whole number") from None
