"""The example's order desk with the pool that `LOADTEST_POOL` names."""

from __future__ import annotations

import os

import flask_app  # in examples/, which gunicorn.conf.py makes the working directory
from flask import Flask

from loadtests.pools import parse

POOL = "LOADTEST_POOL"


def create_app() -> Flask:
    """The application, for gunicorn."""
    variant = parse(os.environ[POOL])
    return flask_app.create_app({"SQLALCHEMY_ENGINE_OPTIONS": variant.engine_options()})
