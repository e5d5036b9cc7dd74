"""What is claimed of speed and size, measured beside the peers in one run: `python -m benchmarks`.

Each module is a benchmark of its own, too: `python -m benchmarks.checkout --quick`. Importing this package
monkey-patches, as the programs do that a pool is made for.
"""

from gevent import monkey

monkey.patch_all()
