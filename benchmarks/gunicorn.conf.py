"""gunicorn's configuration for `benchmarks.end_to_end`: the same for all pools, with no hooks."""  # noqa: N999 # the name is gunicorn's

import ctypes
import signal
from pathlib import Path

# Whatever becomes of the benchmark, its web servers go, too.
ctypes.CDLL(None).prctl(1, signal.SIGTERM)

chdir = str(Path(__file__).resolve().parent.parent)
wsgi_app = "benchmarks.desk:create_app()"
worker_class = "gevent"
keepalive = 30
graceful_timeout = 5
control_socket_disable = True
