"""A pytest plugin for a peer's own tests with its own pool: monkey-patching, and nothing else."""

from gevent import monkey

monkey.patch_all()
