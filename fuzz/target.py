"""A target, and the check of one input against the contract."""

import hashlib
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from deop import errors
from deop.errors import DeopError

_DEOP = Path(errors.__file__).parent

TIME_LIMIT = 10.0
"""Seconds of the processor that one input may take."""

HANG_LIMIT = 120
"""Seconds after which a process that is still busy with one input is ended; more than ``TIME_LIMIT``, since other
programs may run on the machine."""

MEMORY_LIMIT = 2000
"""MB of memory of a process, the libraries with about 500 MB among them."""

LONGEST_INPUT = 1 << 16
"""Bytes of the longest input; longer seeds are left out."""

LONGEST_MESSAGE = 2000
"""Characters of the longest message of an error."""


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        name: of the target.
        run: reads an input, which it may write into the given folder, and checks what was read.
        seeds: inputs to begin with.
        refusals: the errors with which an input may be refused.
    """

    name: str
    run: Callable[[bytes, Path], None]
    seeds: Callable[[], Iterable[bytes]]
    refusals: tuple[type[Exception], ...] = (DeopError,)


class BrokenContract(Exception):
    """An input was read, or refused, in another way than documented."""


def check(target: Target, data: bytes, folder: Path) -> Exception | None:
    """What is wrong with the answer to an input; None if nothing is.

    Args:
        target: what reads it.
        data: the input.
        folder: where the target may write files.
    """
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(data, folder)
    except target.refusals as error:
        message = getattr(error, "detail", None) or str(error)
        if not message or len(message) > LONGEST_MESSAGE:
            return BrokenContract(f"the message has {len(message)} characters: {message[:300]}")
    except Exception as error:
        return error
    took = time.process_time() - start
    return BrokenContract(f"it took {took:.0f} seconds") if took > TIME_LIMIT else None


def place_of(error: BaseException) -> str:
    """The type of an error and the last line of deop that it passed through, which identify a finding."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_DEOP)]
    frames = ours or traceback.extract_tb(error.__traceback__)
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "contract"
    return f"{type(error).__name__} in {last}" if frames else f"{type(error).__name__}: {str(error)[:60]}"


def save(data: bytes, error: BaseException, folder: Path) -> Path:
    """Keep an input that breaks the contract, with the traceback beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path
