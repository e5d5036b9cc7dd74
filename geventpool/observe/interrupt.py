"""Ctrl-C for programs that nothing else ends."""

from __future__ import annotations

import signal
import threading


def hear_ctrl_c() -> None:
    """Has Ctrl-C raise `KeyboardInterrupt`, also where SIGINT is ignored. Never switches.

    What a shell script starts in the background, and all that this starts, inherits it ignored, and Python
    then leaves it so.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
