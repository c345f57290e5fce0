"""Signals that end a run early: SIGTERM, and Ctrl-C."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signal(action: Callable[[], None]) -> None:
    """Makes SIGTERM and Ctrl-C call `action`, in the main thread, between two lines of Python."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # shells start background jobs with that
            signal.signal(number, lambda *_: action())


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Context manager in which the second Ctrl-C ends the process at once, with code 130.

    The first is acknowledged at once; the action of `on_signal` may have to wait for the end of a
    long step. At the end all signals are handled as before.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    # Python writes a signal's number there as it arrives, whatever the main thread is doing.
    woken = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        pythons.close()  # ends the thread


def _watch(numbers: socket.socket) -> None:
    interrupts = 0
    with numbers:
        while number := numbers.recv(1):
            interrupts += number[0] == signal.SIGINT
            if number[0] == signal.SIGINT and interrupts == 1:
                told = "stopping when all is saved; Ctrl-C again ends the run at once"
                print(f"\n{told}", file=sys.stderr, flush=True)
            elif interrupts > 1:
                os._exit(128 + signal.SIGINT)
