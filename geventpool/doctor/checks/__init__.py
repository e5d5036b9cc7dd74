"""The checks, each a small function: measure, judge, cure. Importing this registers them all."""

from . import deployment, drivers, network, pools, process, server, settings

__all__ = ["deployment", "drivers", "network", "pools", "process", "server", "settings"]
