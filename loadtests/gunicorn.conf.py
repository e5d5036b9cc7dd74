"""gunicorn's configuration for the load tests: the example's own, with the pool that is asked for."""  # noqa: N999 # the name is gunicorn's

import ctypes
import runpy
import signal
from pathlib import Path

# Whatever becomes of the load test, its web servers go, too.
ctypes.CDLL(None).prctl(1, signal.SIGTERM)

_ROOT = Path(__file__).resolve().parent.parent
globals().update(runpy.run_path(str(_ROOT / "examples" / "flask_app" / "gunicorn.conf.py")))

pythonpath = str(_ROOT)
wsgi_app = "loadtests.desk:create_app()"
