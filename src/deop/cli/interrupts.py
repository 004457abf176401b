"""What Ctrl-C does while the ``deop`` command runs: exit code 130 and no traceback, whatever it interrupts.

Python raises KeyboardInterrupt wherever the program happens to be. Inside the import of a C extension the exception may
be lost or turn into another error, so an import is ended by leaving the process at once. Everywhere else the exception
is raised, so that temporary files are removed and finished results are kept.
"""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
"""128 + SIGINT, as shells report it."""

_RETRY_SECONDS = 0.01


class _State:
    """How the next interrupt is handled."""

    received = False
    leave_at_once = True  # until ``raised``, and again after it
    raise_in_imports = False


def install() -> None:
    """Handle interrupts of this process from now on; unless they are ignored, as they are under ``nohup``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle)
        sys.unraisablehook = _retry_lost_interrupt
        # Registered first, so called last: everything is written, and Python's teardown has no handlers any more.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def received() -> bool:
    """Whether the process has been interrupted: any later error may be a consequence."""
    return _State.received


@contextmanager
def raised() -> Iterator[None]:
    """Raise KeyboardInterrupt inside this block, except in imports; outside it an interrupt ends the process."""
    _State.leave_at_once = False
    try:
        yield
    finally:
        _State.leave_at_once = True


@contextmanager
def raised_in_imports() -> Iterator[None]:
    """Raise KeyboardInterrupt also in imports, while output files or a progress bar are open."""
    before, _State.raise_in_imports = _State.raise_in_imports, True
    try:
        yield
    finally:
        _State.raise_in_imports = before


def leave() -> None:
    """End the process at once, without cleaning up."""
    if not _is_worker():
        os.write(2, b"interrupted\n")
    os._exit(EXIT_CODE)


def _handle(number: int, frame: FrameType | None) -> None:
    _State.received = True
    if _State.leave_at_once or _is_worker() or (_is_importing(frame) and not _State.raise_in_imports):
        leave()
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _is_worker() -> bool:
    """Whether this is a worker process of ``multiprocessing``; its parent gets the interrupt as well and reports it."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.current_process().name != "MainProcess"


def _retry_lost_interrupt(lost: "sys.UnraisableHookArgs") -> None:
    """Send an interrupt again that was raised inside a destructor or callback, where Python drops exceptions."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    import threading
    from _thread import interrupt_main

    threading.Timer(_RETRY_SECONDS, interrupt_main).start()
