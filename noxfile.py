"""`make matrix`: every supported Python with every supported SQLAlchemy."""

import os
from pathlib import Path

import nox

# pyenv's interpreters, where it has them but has not activated them all.
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join(
    [os.environ["PATH"], *map(str, sorted(_PYENV.glob("3.*/bin")))]
)

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


@nox.session(python=["3.11"])
@nox.parametrize("django", ["4.2", "5.1", "5.2"])
def django(session, django):
    """The Django backends, with each supported Django."""
    session.install("-e", ".[dev]", f"Django~={django}.0")
    session.run(
        "python", "-m", "pytest", "-q", "tests/integration/test_django.py", *session.posargs
    )
