"""`make matrix`: every supported Python with every supported SQLAlchemy."""

import os
from pathlib import Path

import nox

# pyenv's interpreters, where it has them but has not activated them all.
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join(
    [os.environ["PATH"], *map(str, sorted(_PYENV.glob("3.*/bin")))]
)

# What runs see is written here, and from here into docs/support.md.
_SEEN = Path(".cache/seen.jsonl").absolute()
os.environ["GEVENTPOOL_SEEN"] = str(_SEEN)

# Which Django runs on which Python.
_DJANGOS = {"3.11": ["4.2", "5.2"], "3.12": ["4.2", "5.2", "6.1"], "3.13": ["5.2", "6.1"]}

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
@nox.parametrize("sqlalchemy", ["1.4", "2.0", "2.1"])
def tests(session, sqlalchemy):
    """Unit, property and peer tests."""
    session.install("-e", ".[dev]", f"SQLAlchemy~={sqlalchemy}.0")
    session.run("python", "-m", "pytest", "-q", "tests/unit", "tests/property", *session.posargs)
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        "tests/peers",
        env={"GEVENTPOOL_PEERS_SQLALCHEMY": sqlalchemy},
    )


@nox.session(python=list(_DJANGOS))
def django(session):
    """The Django backends, with each Django that this Python can run."""
    session.install("-e", ".[dev]")
    for version in _DJANGOS[session.python]:
        session.install(f"Django~={version}.0")
        session.run(
            "python", "-m", "pytest", "-q", "tests/integration/test_django.py", *session.posargs
        )


@nox.session(python=["3.11"])
def libuv(session):
    """The core's and the drivers' unit tests on gevent's other loop.

    Each file in a process of its own, because libuv crashes at a fork after much else (docs/support.md).
    """
    session.install("-e", ".[dev]")
    unit = Path("tests/unit")
    for file in sorted([*unit.glob("test_core_*.py"), *unit.glob("test_drivers*.py")]):
        session.run(
            *["python", "-m", "pytest", "-q", str(file), *session.posargs],
            env={"GEVENT_LOOP": "libuv-cffi"},
        )
