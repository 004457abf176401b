"""Reading videos frame by frame."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deop.errors import ImageError, MissingDependencyError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".3gp", ".ogv")
"""Suffixes of the files that ``deop segment`` reads as videos."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        path: the file.
        size: (height, width) of the frames as they are shown, pixels.
        rate: frames per second, the average.
        time_base: unit of the time stamps, seconds.
        frames: number of frames, an estimate if the file does not say; 0 if it cannot be estimated.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    frames: int


@dataclass(frozen=True)
class DecodedFrame:
    """One frame of a video.

    Attributes:
        index: its number, from 0.
        time: seconds from the start of the video.
        stamp: time stamp in units of the video's time base.
        pixels: (H, W, 3) uint8, RGB, upright; None if the frame cannot be decoded.
        error: why the frame cannot be decoded, or that the decoder repaired it; empty if it is complete.
    """

    index: int
    time: float
    stamp: int
    pixels: np.ndarray | None
    error: str = ""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path has the suffix of a video.

    >>> is_video("clip.MP4"), is_video("photo.jpg")
    (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


def import_av() -> Any:
    """PyAV.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            'videos need the library PyAV: `pip install "deop[video]"`, or `pip install av`'
        ) from error
    return av


@contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[tuple[VideoInfo, Iterator[DecodedFrame]]]:
    """Open a video.

    Args:
        path: the file, in any format that FFmpeg reads.

    Yields:
        Its properties, and an iterator of its frames. A frame that cannot be decoded takes its place with
        ``pixels=None`` and does not end the iteration.

    Raises:
        ImageError: the file is missing, is not a video, or has no picture.
        MissingDependencyError: PyAV is not installed.
    """
    av = import_av()
    file = Path(path).expanduser()
    try:
        container = av.open(os.fspath(file))
    except FileNotFoundError:
        raise ImageError(f"cannot read {path}: no such file; check the path") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"cannot read the video {path}: {_reason(error)}; copy or download it again") from error
    with container:
        if not container.streams.video:
            raise ImageError(f"cannot read {path}: it has no picture, only {_stream_types(container)}")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first: DecodedFrame | None = None
        frames = _decode(av, container, stream)
        waiting = []
        for frame in frames:  # the size after rotation is known from the first frame only
            waiting.append(frame)
            if frame.pixels is not None:
                first = frame
                break
        if first is None or first.pixels is None:
            reason = waiting[0].error if waiting else "it has no frames"
            raise ImageError(f"cannot read the video {path}: none of its frames can be decoded ({reason})")
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        info = VideoInfo(file, first.pixels.shape[:2], rate, Fraction(stream.time_base), _count(av, stream, rate))
        yield info, _chain(waiting, frames)


def _chain(waiting: list[DecodedFrame], frames: Iterator[DecodedFrame]) -> Iterator[DecodedFrame]:
    while waiting:
        yield waiting.pop(0)
    yield from frames


def _decode(av: Any, container: Any, stream: Any) -> Iterator[DecodedFrame]:
    index, start, stamp = 0, None, 0
    step = max(1, round(1 / ((stream.average_rate or 25) * stream.time_base)))
    packets = container.demux(stream)
    while True:
        error = ""
        decoded: list[Any] = []
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as problem:
            yield DecodedFrame(index, _seconds(stamp, stream), stamp, None, f"the file is damaged ({_reason(problem)})")
            return
        try:
            decoded = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError, ValueError) as problem:
            error = f"damaged frame ({_reason(problem)})"
        if error:
            stamp += step
            yield DecodedFrame(index, _seconds(stamp, stream), stamp, None, error)
            index += 1
        for frame in decoded:
            if start is None:
                start = frame.pts or 0
            # Stamps must ascend, also in files whose own do not.
            stamp = max(stamp + (index > 0), frame.pts - start) if frame.pts is not None else stamp + step
            pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
            note = "the frame is damaged, and was repaired by the decoder" if frame.is_corrupt else ""
            yield DecodedFrame(index, _seconds(stamp, stream), stamp, pixels, note)
            index += 1


def _seconds(stamp: int, stream: Any) -> float:
    return float(stamp * stream.time_base)


def _count(av: Any, stream: Any, rate: Fraction) -> int:
    """The number of frames, from the header or from the duration; 0 if neither is known."""
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return round(stream.duration * stream.time_base * rate)
    if stream.container.duration:
        return round(Fraction(stream.container.duration, av.time_base) * rate)
    return 0


def _stream_types(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "an empty container"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
