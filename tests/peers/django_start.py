"""Runs Django's own tests: monkey-patching, a driver, and then its `runtests.py`.

`python -m tests.peers.django_start DRIVER FOLDER …`, with the folder of Django's tests and what
`runtests.py` is to be told.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import os
import runpy
import sys
import warnings


def main() -> None:
    """The command line."""
    driver, folder, *arguments = sys.argv[1:]
    warnings.filterwarnings("ignore", message=".*blocks the gevent hub")
    if driver == "pymysql":
        import pymysql

        pymysql.install_as_MySQLdb()
    elif driver == "psycopg2":
        from psycogreen.gevent import patch_psycopg

        patch_psycopg()
        sys.modules["psycopg"] = None  # type: ignore[assignment]  # or Django would prefer it
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = ["runtests.py", "--settings=tests.peers.django_settings", *arguments]
    runpy.run_path(os.path.join(folder, "runtests.py"), run_name="__main__")


if __name__ == "__main__":
    main()
