"""What happens to a pool in a gevent server, side by side: geventpool and its peers, in one run.

    python -m tests.stress.scenarios --help

`catalogue.py` lists the scenarios; `pools.py` makes the pools alike for them; `run.py` gives each pair of
scenario and pool a fresh process with a time limit (`child.py`), and `report.py` writes `RESULTS.md`.
"""
