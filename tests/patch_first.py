"""Monkey-patches the test process before anything else is imported (a pytest plugin, by addopts)."""

from gevent import monkey

monkey.patch_all()

from psycogreen.gevent import patch_psycopg  # noqa: E402

patch_psycopg()
