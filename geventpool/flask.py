"""The Flask door: every engine of Flask-SQLAlchemy on a geventpool.

::

    db = SQLAlchemy()
    pool = GeventPool(db=db)

    def create_app():
        app = Flask(__name__)
        db.init_app(app)
        pool.init_app(app)

The order of the two `init_app` calls is free, and ``GeventPool(app, db)`` does it in one. With one
database the extension isn't even needed: `SQLALCHEMY_ENGINE_OPTIONS = {"poolclass": GeventPool}`
(that one of `geventpool.sqlalchemy`) does the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import click
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    appcontext_pushed,
    current_app,
    request,
    request_started,
)
from flask.cli import AppGroup, ScriptInfo
from flask.globals import app_ctx
from gevent import get_hub
from werkzeug.wrappers import Response as WSGIResponse

from geventpool import sqlalchemy as door
from geventpool.config import make_config, shows_settings
from geventpool.core.watch import is_libuv
from geventpool.errors import ConfigError
from geventpool.recorder import record
from geventpool.sqlalchemy.memory import why_kept

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

__all__ = ["GeventPool", "dashboard", "metrics"]

PREFIX = "GEVENTPOOL_"

# Belong to geventpool.gunicorn and geventpool.observe, and come along when the environment is read
# into app.config.
SNAPSHOTS = "GEVENTPOOL_SNAPSHOTS"
NOT_SETTINGS = frozenset({"GEVENTPOOL_DRAIN_TIMEOUT", SNAPSHOTS, "GEVENTPOOL_DASHBOARD_TOKEN"})

# What only SQLAlchemy's kind of pool takes, and what only this extension does.
NOT_THE_POOLS = frozenset({"echo", "logging_name", "observe", "record"})

_METHODS = ["GET", "HEAD", "POST"]  # the last for the token

logger = logging.getLogger("geventpool.flask")


@shows_settings
class GeventPool:
    """Puts each engine of an application's Flask-SQLAlchemy, one per bind, on a geventpool.

    The settings are those of `geventpool.sqlalchemy.GeventPool` and hold for every bind;
    ``app.config`` overrides them with keys such as `GEVENTPOOL_POOL_SIZE`. A bind that needs
    others gets them from Flask-SQLAlchemy itself, and the extension leaves its engine as it is::

        SQLALCHEMY_BINDS = {"reports": {"url": ..., "poolclass": GeventPool, "pool_size": 2}}

    With ``GEVENTPOOL_RECORD = "traces/"`` (or `record="traces/"`) the load of each bind is written
    to files there, for `geventpool simulate`.

    With ``GEVENTPOOL_OBSERVE = True`` (or `observe=True`) each bind is observed, and the hub is
    watched; a dict in place of True has settings of `geventpool.observe.attach`. If
    ``GEVENTPOOL_SNAPSHOTS`` names a directory, in the configuration or in the environment, what
    they see is published there, for `geventpool top` and for the metrics of several workers.

    A SQLite database in memory keeps Flask-SQLAlchemy's pool of one connection: that connection is the
    database.

    Args:
        app: the application to set up now; without it, call `init_app`.
        db: the application's Flask-SQLAlchemy object; without it, the one registered there.
        **settings: each with its meaning.

    Raises:
        ConfigError: `app` or `db` is something else, or a setting is not right.
    """

    def __init__(
        self, app: Flask | None = None, db: SQLAlchemy | None = None, **settings: Any
    ) -> None:
        if db is not None and not _is_flask_sqlalchemy(db):
            cure = "pass the flask_sqlalchemy.SQLAlchemy object: GeventPool(app, db)"
            raise ConfigError("db", db, cure)
        self._db = db
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap the application's engines: now, or as soon as Flask-SQLAlchemy has made them.

        Flask-SQLAlchemy makes them in its own `init_app` and shows them in an application context
        only. If it comes second, they are wrapped when the next context begins, thus before any
        use. Call it once for each application. Never switches.

        Args:
            app: the application.

        Raises:
            ConfigError: not a Flask application, set up already, registered with another `db`, or
                a setting is not right. An application whose first request comes and that still has
                no Flask-SQLAlchemy gets it there.
        """
        if not isinstance(app, Flask):
            cure = "pass the Flask application first: GeventPool(app, db)"
            raise ConfigError("app", app, cure)
        if "geventpool" in app.extensions:
            cure = "call init_app once for each application; the first call holds"
            raise ConfigError("app", app, cure)
        # Told here, at the line where it can be put right, even if there is nothing to wrap yet.
        settings = self._settings_for(app)
        make_config(**{name: settings[name] for name in settings.keys() - NOT_THE_POOLS})
        _observing(settings)
        if "sqlalchemy" in app.extensions:
            with app.app_context():
                self._wrap_engines(app)
        else:
            # Flask keeps its listeners weakly; bound methods of an object that the application
            # holds live as long as it does.
            appcontext_pushed.connect(self._on_context, app)
            request_started.connect(self._on_request, app)
        app.extensions["geventpool"] = self

    @property
    def pools(self) -> dict[str | None, Pool]:
        """The SQLAlchemy pool of each bind key of the current application; None is the default."""
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        engines = _engines_of(self._flask_sqlalchemy(app), app)
        return {bind_key: engine.pool for bind_key, engine in engines.items()}

    def _on_context(self, app: Flask, **_: Any) -> None:
        """An application context began: the engines may be there by now."""
        if "sqlalchemy" in app.extensions:
            try:
                self._wrap_engines(app)
            except BaseException:
                app_ctx.pop()  # Flask won't: its push has failed
                raise
            appcontext_pushed.disconnect(self._on_context, app)
            request_started.disconnect(self._on_request, app)

    def _on_request(self, app: Flask, **_: Any) -> None:
        """A request although nothing was wrapped yet: set-up is over, so it was forgotten."""
        if "sqlalchemy" not in app.extensions:
            self._flask_sqlalchemy(app)

    def _wrap_engines(self, app: Flask) -> None:
        """Put every bind's engine on a geventpool, in the application's context."""
        db = self._flask_sqlalchemy(app)
        settings = self._settings_for(app)
        for bind_key, engine in _engines_of(db, app).items():
            _wrap_engine(engine, bind_key, settings)
        if _observing(settings) is not None:
            _publish(app)

    def _settings_for(self, app: Flask) -> dict[str, Any]:
        """The settings for an application: its configuration overrides the arguments."""
        return {**self._settings, **_settings_of(app.config)}

    def _flask_sqlalchemy(self, app: Flask) -> SQLAlchemy:
        """The application's Flask-SQLAlchemy object.

        Raises:
            ConfigError: there is none, or it isn't the one that this extension was given.
        """
        registered: Any = app.extensions.get("sqlalchemy")
        if type(registered).__name__ == "_SQLAlchemyState":  # of Flask-SQLAlchemy 2.5
            registered = registered.db
        if registered is None:
            cure = (
                "call db.init_app(app) of Flask-SQLAlchemy too; without Flask-SQLAlchemy, use"
                " geventpool.wrap(engine)"
            )
            raise ConfigError("db", registered, cure)
        if self._db is not None and registered is not self._db:
            cure = "pass the SQLAlchemy object whose init_app was called with this application"
            # Its own repr needs an application, the right one.
            raise ConfigError("db", type(self._db), cure)
        return cast("SQLAlchemy", registered)


commands = AppGroup("geventpool", help="Connection pools: what is wrong, and the cure.")
"""`flask geventpool …`, of every application: Flask finds it where geventpool is installed."""


@commands.command("doctor", with_appcontext=False)
@click.option("--symptom", metavar="TEXT", help="An error's text; its checks come first.")
@click.option("--gunicorn", metavar="FILE", help="gunicorn's configuration.")
@click.option("--workers", type=int, help="Processes on each host.")
@click.option("--hosts", type=int, default=1, show_default=True, help="Machines.")
@click.option("--json", "is_json", is_flag=True, help="For programs.")
@click.pass_context
def _doctor(context: click.Context, /, is_json: bool, **options: Any) -> None:
    """Say what is wrong with the application's databases and pools, why, and the cure."""
    try:
        from geventpool.doctor.command import examine_flask, show
    except ImportError as error:
        problem = f"doctor needs {error.name}: pip install 'geventpool[cli]'"
        raise click.ClickException(problem) from None
    try:
        findings = examine_flask(context.ensure_object(ScriptInfo).load_app(), **options)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    show(findings, is_json)


def metrics() -> Response:
    """A view with the figures of all pools for Prometheus. May switch greenlets.

    ``app.add_url_rule("/metrics", view_func=geventpool.flask.metrics)``

    With several workers each has to publish its figures, `geventpool.observe.publish()`; the worker that
    is asked answers for all. It asks nobody who he is: let the web server keep strangers away.
    """
    from geventpool.observe import prometheus

    return Response(prometheus.exposition(), content_type=prometheus.CONTENT_TYPE_LATEST)


def dashboard(
    app: Flask,
    url_prefix: str = "/pools",
    *,
    allow: Callable[[], bool] | None = None,
    snapshots: str | os.PathLike[str] | None = None,
    memory: str | os.PathLike[str] | None = None,
) -> None:
    """Adds the page of `geventpool dashboard` to an application. Never switches.

    Args:
        app: the application.
        url_prefix: where the page is.
        allow: called in each request: may this visitor look?
        snapshots: where processes publish; `None`: as `GEVENTPOOL_SNAPSHOTS` or `publish()` say.
        memory: the file with the last day; `None`: as `geventpool dashboard`.

    Raises:
        ConfigError: neither `allow` nor `GEVENTPOOL_DASHBOARD_TOKEN` says who may look.
    """
    from geventpool.dashboard.making import Embedded  # which needs the extra

    page = Embedded(snapshots or app.config.get(SNAPSHOTS), memory)
    if not (allow or page.has_token):
        raise ConfigError("allow", allow, "say who may look, or set GEVENTPOOL_DASHBOARD_TOKEN")
    blueprint = Blueprint("geventpool_dashboard", __name__, url_prefix=f"/{url_prefix.strip('/')}")

    def show(path: str = "") -> WSGIResponse:
        if allow is not None and not allow():
            abort(403)
        base = f"{request.script_root}{blueprint.url_prefix}"

        def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return page.answer(environ, start_response, base, path, allow is not None)

        return WSGIResponse.from_app(run, request.environ)

    blueprint.add_url_rule("/", "show", show, methods=_METHODS)
    blueprint.add_url_rule("/<path:path>", "show", show, methods=_METHODS)
    app.register_blueprint(blueprint)


def _engines_of(db: Any, app: Flask) -> Mapping[str | None, Engine]:
    """Each bind's engine, in the application's context; 2.5 makes one when it is first asked for it."""
    if hasattr(type(db), "engines"):
        engines: Mapping[str | None, Engine] = db.engines
        return engines
    binds = (None, *(app.config["SQLALCHEMY_BINDS"] or ()))
    return {bind_key: db.get_engine(app, bind_key) for bind_key in binds}


def _wrap_engine(engine: Engine, bind_key: str | None, settings: Mapping[str, Any]) -> None:
    """Put one engine on a geventpool, unless its connection is its database.

    Raises:
        ConfigError: the directory for its records cannot be written to.
    """
    directory, observing = settings.get("record"), _observing(settings)
    ours = ("record", "observe")
    settings = {name: value for name, value in settings.items() if name not in ours}
    kept = why_kept(engine.pool)
    if kept is not None:
        logger.info("bind %r stays as it is: %s", bind_key, kept)
        return
    door.wrap(engine, **settings)
    if directory is not None:
        record(engine, directory, name=bind_key or "default")
    if observing is not None:
        from geventpool import observe

        observe.attach(engine, **observing)


def _observing(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """How to observe; `None`: not at all.

    Raises:
        ConfigError: it is neither a yes or a no nor settings of `geventpool.observe.attach`.
    """
    given = settings.get("observe")
    if given is None or given is False:
        return None
    if given is True:
        return {}
    if isinstance(given, Mapping):
        from geventpool.observe import make_settings

        make_settings(**given)
        return dict(given)
    cure = "give True, or a dict of settings of geventpool.observe.attach"
    raise ConfigError("observe", given, cure)


def _publish(app: Flask) -> None:
    """Watches the hub, if it can be, and publishes what is seen if a directory for it is named."""
    from geventpool import observe

    if not is_libuv(get_hub().loop):
        observe.watch_hub()
    directory = app.config.get(SNAPSHOTS) or os.environ.get(SNAPSHOTS)
    if directory:
        observe.publish(directory)


def _settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The pool's settings in an application's configuration."""
    return {
        key.removeprefix(PREFIX).lower(): value
        for key, value in config.items()
        if key.startswith(PREFIX) and key not in NOT_SETTINGS
    }


def _is_flask_sqlalchemy(db: object) -> bool:
    """By name, so that Flask-SQLAlchemy isn't imported for an application that doesn't use it."""
    return any(c.__module__.partition(".")[0] == "flask_sqlalchemy" for c in type(db).__mro__)
