"""What geventpool needs, and what its page says; all that never changes is in pyproject.toml."""

import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "geventpool/__init__.py").read_text())[1]

# Where the project lives. Links of its page lead there; without it they stay as they are.
URL = os.environ.get("GEVENTPOOL_URL", "").rstrip("/")
BRANCH = f"{URL}/blob/v{VERSION}"
URLS = {
    "Homepage": URL,
    "Documentation": f"{BRANCH}/README.md",
    "Changelog": f"{BRANCH}/CHANGELOG.md",
    "Issues": f"{URL}/issues",
}


def page() -> str:
    """The README, whose links within the project have to lead to it from elsewhere."""
    text = (ROOT / "README.md").read_text()
    return re.sub(r"\]\((?!https?:|#)", f"]({BRANCH}/", text) if URL else text


DRIVERS = [
    "PyMySQL>=1.1",
    "cryptography",
    "psycopg2-binary>=2.9",
    "psycogreen>=1.0",
    "pg8000>=1.30",
    "mysql-connector-python>=8.0.33",
]
PSYCOPG = ["psycopg[binary]>=3.1"]
SQLALCHEMY = ["SQLAlchemy>=1.4.43"]  # as geventpool/sqlalchemy/compat.py says
FLASK = ["Flask>=2.2", "blinker>=1.5", "Flask-SQLAlchemy>=2.5", *SQLALCHEMY]
DJANGO = ["Django>=4.2"]
GUNICORN = ["gunicorn[gevent]>=22"]  # its worker wants more than gunicorn does
PLOTS = ["matplotlib>=3.7"]
CLI = ["click>=8.1", "rich>=13"]
DASHBOARD = ["Jinja2>=3.1", *CLI]
PROMETHEUS = ["prometheus-client>=0.19"]
OPENTELEMETRY = ["opentelemetry-api>=1.24"]
OBSERVE = ["sqlglot>=20", *CLI, *PROMETHEUS]
LOADTESTS = ["locust>=2.31", "Jinja2>=3"]
EXAMPLES = [
    "celery>=5.4",
    "check-jsonschema>=0.29",
    "Flask-SocketIO>=5.3",
    "pandas>=2.2",
    "python-socketio[client]>=5.11",
    "simple-websocket>=1",
]
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
# What somebody may give by mistake.
ASYNCIO = ["aiomysql>=0.2", "aiosqlite>=0.20", "asyncpg>=0.30"]
DOCS = ["mkdocs-material>=9.6", "mkdocstrings-python>=1.16"]
RELEASE = ["build>=1", "check-manifest>=0.50", "twine>=6.1"]
# The other pools, for benchmarks and stress tests.
PEERS = ["DBUtils>=3", "django-db-geventpool>=4.0.8", "psycopg-pool>=3.3"]

setup(
    version=VERSION,
    long_description=page(),
    long_description_content_type="text/markdown",
    project_urls=URLS if URL else {},
    install_requires=["gevent>=24"],
    extras_require={
        "mysql": ["PyMySQL>=1.1", "cryptography"],
        "mysqlclient": ["mysqlclient>=2.1"],
        "mysqlconnector": ["mysql-connector-python>=8.0.33"],
        "mariadb": ["mariadb>=1.1"],
        "postgresql": PSYCOPG,
        "psycopg2": ["psycopg2-binary>=2.9", "psycogreen>=1.0"],
        "pg8000": ["pg8000>=1.30"],
        "sqlalchemy": SQLALCHEMY,
        "flask": FLASK,
        "django": DJANGO,
        "gunicorn": GUNICORN,
        "uwsgi": ["uwsgi>=2.0.22"],
        "cli": CLI,
        "dashboard": DASHBOARD,
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
            *DASHBOARD,
            *OPENTELEMETRY,
            "opentelemetry-sdk>=1.24",
            *PEERS,
            *TRACERS,
            *LOADTESTS,
            *EXAMPLES,
            *FOUND_BESIDE_US,
            *ASYNCIO,
            *DOCS,
            *RELEASE,
            "hypothesis>=6.100",
            "grimp>=3.9",
            "import-linter>=2.6",
            "mypy>=1.10",
            "nox>=2024.4",
            "pytest>=8",
            "pytest-randomly>=3.15",
            "ruff>=0.5",
            "selenium>=4.20",
            "scipy>=1.11",
        ],
    },
)
