"""An application as its server loads it: `module:name`, or a call as `module:create_app()`."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from typing import Any

from gevent import monkey

from ...errors import ConfigError, without_passwords
from ..case import Deployment, Process, Target
from .patching import PatchWatch

_USUAL = ("application", "app")


def load(name: str, deployment: Deployment) -> tuple[Process, list[Target]]:
    """Loads an application in this process, monkey-patched before if its server does that.

    Args:
        name: as gunicorn is given it.
        deployment: its server.

    Returns:
        What was seen of monkey-patching, and all engines and pools that there are now.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if deployment.has_greenlets and not deployment.preload:
        monkey.patch_all()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    watch = PatchWatch()
    try:
        app = _find(name)
    finally:
        process = watch.stop()
    return process, _targets(app)


def _find(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        if not attribute:
            found = [getattr(module, one) for one in _USUAL if hasattr(module, one)]
            return found[0] if found else module
        return _attribute(module, attribute)
    except ConfigError:
        raise
    except BaseException as error:  # whatever a program does when it is loaded, `sys.exit` included
        if isinstance(error, KeyboardInterrupt):
            raise
        cure = f"loading it raised {type(error).__name__}: {without_passwords(str(error))}"
        raise ConfigError("app", name, cure) from None


def _attribute(module: Any, text: str) -> Any:
    """A name, a dotted name, or a call of one with literals, as gunicorn understands it."""
    tree = ast.parse(text, mode="eval").body
    call = tree if isinstance(tree, ast.Call) else None
    found = module
    for part in ast.unparse(call.func if call else tree).split("."):
        found = getattr(found, part)
    if call is None:
        return found
    given = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    return found(*map(ast.literal_eval, call.args), **given)


def _targets(app: Any) -> list[Target]:
    if "django" in sys.modules and "flask" not in sys.modules:
        from .django import targets_of_django

        return targets_of_django()
    if "sqlalchemy" not in sys.modules and "geventpool.pool" not in sys.modules:
        return []
    from .engines import engines_in_process, of_flask

    is_flask = any(kind.__module__.partition(".")[0] == "flask" for kind in type(app).__mro__)
    return of_flask(app) if is_flask and "sqlalchemy" in app.extensions else engines_in_process()
