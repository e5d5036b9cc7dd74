"""`geventpool record`: runs a Python program and records the load of all its pools."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from .recorder import FILES, MAX_BYTES, Recorder


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("directory")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--max-bytes", default=MAX_BYTES, show_default=True, help="Of one file.")
@click.option(
    "--files",
    default=FILES,
    show_default=True,
    help="Kept for each process and pool; then the oldest goes.",
)
def record(directory: str, program: tuple[str, ...], max_bytes: int, files: int) -> None:
    """Run PROGRAM and write the load of its pools to DIRECTORY.

    PROGRAM is a Python script, a Python command such as gunicorn or flask, or -m MODULE, with its
    arguments. All pools are recorded, SQLAlchemy's own too; each process that the program forks
    writes files of its own. Then: geventpool simulate DIRECTORY
    """
    run = _runner(program)
    recorder = Recorder(directory, max_bytes=max_bytes, files=files)
    recorder.attach_all()
    when_imported("sqlalchemy", recorder.attach_all_of_sqlalchemy)
    try:
        run()
    finally:
        recorder.flush()


def _runner(program: tuple[str, ...]) -> Callable[[], object]:
    """What runs a program in this process, as `python` would."""
    name, *arguments = program
    if name == "-m":
        if not arguments:
            raise ConfigError("program", name, "name a module after -m")
        sys.argv = arguments
        _find_modules_in(os.getcwd())
        return lambda: runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    # A command's name means the command, as in a shell, also where a file of the working directory has it.
    is_path = os.sep in name or name.endswith(".py")
    found = name if is_path and Path(name).is_file() else shutil.which(name)
    if found is None:
        raise ConfigError("program", name, "there is no such script or command")
    with open(found, "rb") as file:
        is_python = found.endswith(".py") or b"python" in file.readline(200)
    if not is_python:
        raise ConfigError("program", found, "is no Python program: only those can be recorded")
    sys.argv = [found, *arguments]
    _find_modules_in(str(Path(found).resolve().parent))
    return lambda: runpy.run_path(found, run_name="__main__")


def _find_modules_in(folder: str) -> None:
    """As `python` does: first in the folder of the script, or, for `-m`, in the working directory."""
    if not getattr(sys.flags, "safe_path", False):  # Python 3.11 and later: -P, PYTHONSAFEPATH
        sys.path[0:0] = [folder]


def when_imported(name: str, call: Callable[[], object]) -> None:
    """Makes a call as soon as a module has been imported: now, if it has been already.

    To import it here would be too early: the program may have to monkey-patch before.
    """
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Finder(name, call))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name, self._call = name, call

    def find_spec(
        self, name: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._call)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, call: Callable[[], object]) -> None:
        self._loader, self._call = loader, call

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader  # nobody shall see us
        self._loader.exec_module(module)
        self._call()
