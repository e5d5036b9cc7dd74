"""Runs Django's own tests: monkey-patching, a driver, and then its `runtests.py`.

With mysqlclient nothing is patched: it would block the greenlets that these tests take for threads.

`python -m tests.peers.django_start DRIVER FOLDER …`, with the folder of Django's tests and what
`runtests.py` is to be told.
"""

import sys

from gevent import monkey

if sys.argv[1] != "mysqlclient":
    monkey.patch_all()

import os
import runpy
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
