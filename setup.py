"""Metadata of geventpool; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "geventpool/__init__.py").read_text())[1]

DRIVERS = [
    "PyMySQL>=1.1",
    "cryptography",
    "psycopg2-binary>=2.9",
    "psycogreen>=1.0",
    "pg8000>=1.30",
]
UNKNOWN = ["mysql-connector-python>=9"]  # of which no file of `drivers/` knows anything
PSYCOPG = ["psycopg[binary]>=3.1"]
FLASK = ["Flask>=2.3", "Flask-SQLAlchemy>=3.1"]
DJANGO = ["Django>=4.2"]
GUNICORN = ["gunicorn[gevent]>=22"]  # its worker wants more than gunicorn does
PLOTS = ["matplotlib>=3.7"]
CLI = ["click>=8.1", "rich>=13"]
PROMETHEUS = ["prometheus-client>=0.19"]
OPENTELEMETRY = ["opentelemetry-api>=1.24"]
OBSERVE = ["sqlglot>=20", *CLI, *PROMETHEUS]
LOADTESTS = ["locust>=2.31", "Jinja2>=3"]
EXAMPLES = ["celery>=5.4", "check-jsonschema>=0.29"]
# What programs have that share a database URL or a process with ours, for tests.
FOUND_BESIDE_US = ["alembic>=1.13", "eventlet>=0.36"]
# What puts objects of its own around a driver's connection.
TRACERS = [
    "ddtrace>=3",
    "opentelemetry-instrumentation-mysqlclient>=0.50b0",
    "opentelemetry-instrumentation-psycopg>=0.50b0",
    "opentelemetry-instrumentation-psycopg2>=0.50b0",
    "opentelemetry-instrumentation-pymysql>=0.50b0",
    "opentelemetry-instrumentation-sqlalchemy>=0.50b0",
    "wrapt>=1.14",
]
# The other pools, for benchmarks and stress tests.
PEERS = ["DBUtils>=3", "django-db-geventpool>=4.0.8", "psycopg-pool>=3.3"]

setup(
    name="geventpool",
    version=VERSION,
    description="The database connection pool for monkey-patched servers: it sizes itself",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["geventpool", "geventpool.*"]),
    package_data={"geventpool": ["py.typed"]},
    install_requires=["gevent>=24", "SQLAlchemy>=2.0"],
    extras_require={
        "mysql": ["PyMySQL>=1.1", "cryptography"],
        "mysqlclient": ["mysqlclient>=2.1"],
        "postgresql": PSYCOPG,
        "psycopg2": ["psycopg2-binary>=2.9", "psycogreen>=1.0"],
        "pg8000": ["pg8000>=1.30"],
        "flask": FLASK,
        "django": DJANGO,
        "gunicorn": GUNICORN,
        "uwsgi": ["uwsgi>=2.0.22"],
        "cli": CLI,
        "plots": PLOTS,
        "prometheus": PROMETHEUS,
        "opentelemetry": OPENTELEMETRY,
        "observe": OBSERVE,
        "loadtests": [*LOADTESTS, *CLI, *PLOTS, *FLASK, *GUNICORN],
        "dev": [
            *DRIVERS,
            *PSYCOPG,
            *FLASK,
            *DJANGO,
            *GUNICORN,
            *PLOTS,
            *CLI,
            *OBSERVE,
            *OPENTELEMETRY,
            "opentelemetry-sdk>=1.24",
            *PEERS,
            *TRACERS,
            *LOADTESTS,
            *EXAMPLES,
            *FOUND_BESIDE_US,
            *UNKNOWN,
            "hypothesis>=6.100",
            "grimp>=3.9",
            "import-linter>=2.6",
            "mypy>=1.10",
            "nox>=2024.4",
            "pytest>=8",
            "pytest-randomly>=3.15",
            "ruff>=0.5",
            "scipy>=1.11",
        ],
    },
    entry_points={
        "console_scripts": ["geventpool = geventpool.cli:main"],
        "flask.commands": ["geventpool = geventpool.flask:commands"],
        "sqlalchemy.plugins": ["geventpool = geventpool.sqlalchemy:GeventPoolPlugin"],
    },
    classifiers=[
        "Framework :: Django",
        "Framework :: Flask",
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Database",
        "Typing :: Typed",
    ],
)
