"""Settings of the order desk. The database is named by DATABASE_URL, as SQLAlchemy writes it:
`mysql+pymysql://user:password@host/name`, `postgresql+psycopg://…` or `postgresql+psycopg2://…`.
"""

import os
import sys
from urllib.parse import unquote, urlsplit

_url = urlsplit(os.environ.get("DATABASE_URL", "postgresql+psycopg://127.0.0.1/order_desk"))
_dialect, _, _driver = _url.scheme.partition("+")

if _driver == "pymysql":
    import pymysql

    pymysql.install_as_MySQLdb()
elif _driver == "psycopg2":
    sys.modules.setdefault("psycopg", None)  # where both are installed, Django prefers the other

DATABASES = {
    "default": {
        "ENGINE": f"geventpool.django.{_dialect}",
        "NAME": _url.path.strip("/"),
        "USER": _url.username or "",
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname or "",
        "PORT": str(_url.port or ""),
        # There is nothing to tune; this is here to be played with.
        "POOL": {"max_size": int(os.environ.get("DESK_MAX_SIZE", "10"))},
    }
}

INSTALLED_APPS = ["geventpool.django", "orders"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "desk.urls"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
SECRET_KEY = os.environ.get("SECRET_KEY", "of an example for one's own machine")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "static/"
