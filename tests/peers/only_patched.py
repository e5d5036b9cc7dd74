"""A pytest plugin for a peer's own tests with its own pool: monkey-patching, and nothing else."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import sys
import unittest.mock

sys.modules["mock"] = unittest.mock  # as tests of the time of Python 2 call it
