"""Writing the photos and masks of a public data set in the folder format, in several processes."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.data.label_files import read_labels
from deop.data.labelled import photo_size
from deop.data.official import Item
from deop.errors import DataError
from deop.files import replacing, resolved

INVALID = -1
"""In a table of ids: the value does not exist in the data set."""


def convert_all(
    jobs: Sequence[tuple[Item, Path]],
    table: np.ndarray,
    copy: bool,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, list[str]]:
    """Write the photos and masks of items. Those that exist are kept.

    Args:
        jobs: items, each with the folder of its split.
        table: (65536,) int32, the id in prepared masks of each official value, ``INVALID`` for values that do not
            exist.
        copy: copy photos instead of linking them.
        workers: number of processes.
        progress: called after each item with the number of items done and the number of all items.

    Returns:
        The number of masks written, and a message for each item that cannot be used.

    Raises:
        OutputError: a file cannot be written.
    """
    written, left_out = 0, []
    with _mapping(min(workers, len(jobs))) as run:
        for done, outcome in enumerate(run(_convert, jobs, repeat(table), repeat(copy))):
            written += outcome is True
            if isinstance(outcome, str):
                left_out.append(outcome)
            if progress:
                progress(done + 1, len(jobs))
    return written, left_out


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[bool | str]]]:
    """``map``, in this process or in several."""
    if workers <= 1:
        yield map
        return
    # "spawn", because a fork of a process with threads, such as torch's, may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts)

    def run(*arguments: Any) -> Iterator[bool | str]:
        with _interrupts_blocked():
            return pool.map(*arguments, chunksize=16)  # the table is sent once per chunk

    try:
        yield run
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that processes started meanwhile never receive it.

    Ctrl-C interrupts a whole group of processes. Only the parent handles it, and lets its workers finish their photos.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where the initializer of the workers has to do
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _convert(job: tuple[Item, Path], table: np.ndarray, copy: bool) -> bool | str:
    """Write the photo and the mask of an item.

    Returns:
        True if they were written, False if they existed, a message if the official files cannot be used.
    """
    item, place = job
    photo = place / "images" / f"{item.stem}{item.photo.suffix.lower()}"
    mask = place / "masks" / f"{item.stem}.png"
    panoptic = place / "panoptic" / f"{item.stem}.png" if item.form == "panoptic" else None
    if mask.exists() and photo.exists() and (panoptic is None or panoptic.exists()):
        return False
    try:
        ids = _convert_labels(item, table)
    except DataError as error:
        return str(error)
    link_or_copy(item.photo, photo, copy)
    if panoptic is not None:
        link_or_copy(item.labels, panoptic, copy)
    with replacing(mask) as file:  # last, so that an existing mask means a complete item
        Image.fromarray(ids).save(file, "PNG")
    return True


def _convert_labels(item: Item, table: np.ndarray) -> np.ndarray:
    """The ids of a prepared mask, (H, W) uint8 or uint16.

    Raises:
        DataError: labels that cannot be read, do not fit their photo, or have values that do not exist.
    """
    values = read_labels(item)
    size = photo_size(item.photo)
    if values.shape != size:
        raise DataError(f"{item.labels} is {values.shape[1]} x {values.shape[0]}, its photo {size[1]} x {size[0]}")
    ids = table[values]
    if (invalid := ids == INVALID).any():
        raise DataError(f"{item.labels} has the value {values[invalid][0]}, which does not exist in its data set")
    return ids.astype(np.uint16 if table.max() > 255 else np.uint8)


def link_or_copy(source: Path, target: Path, copy: bool) -> None:
    """Create a symbolic link, which leaves the source untouched, else a hard link, else a copy."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        for link in (os.symlink, os.link):
            with suppress(OSError):
                target.unlink(missing_ok=True)  # a link to a file that no longer exists
                link(resolved(source), target)
                return
    with replacing(target) as file, source.open("rb") as official:
        shutil.copyfileobj(official, file)
