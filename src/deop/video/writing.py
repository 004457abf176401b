"""Writing videos: pictures at the times of the frames they show, with the sound of the original."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import OutputError
from deop.files import replacing
from deop.video.reading import VideoInfo, import_av

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# Encoders by container, the preferred one first: H.264 plays everywhere, MPEG-4 exists in every build of FFmpeg.
_ENCODERS = {"webm": ("libvpx-vp9", "libsvtav1")}
_DEFAULT_ENCODERS = ("libx264", "h264", "mpeg4")
_OPTIONS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "32", "b": "0", "cpu-used": "5", "row-mt": "1"},
    "libsvtav1": {"crf": "32", "preset": "9"},
    "mpeg4": {"qscale": "3"},
}
_SOUND = {"mp4": ("aac", "mp3", "ac3", "alac"), "mov": ("aac", "mp3", "alac", "pcm_s16le"), "webm": ("opus", "vorbis")}


def check_video_suffix(path: Path) -> str:
    """FFmpeg's name of the container that a file suffix names.

    Raises:
        OutputError: the suffix is unknown.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise OutputError(f"cannot write {path}: unknown suffix {path.suffix!r}; use one of {', '.join(_FORMATS)}")
    return form


class VideoWriter:
    """Writes pictures into a video file, which appears at its path once it is complete.

    If an interrupt or an error ends the ``with`` block, the file with the frames written so far is kept, unless there
    are none: hours of work are not lost, and the file plays.

    Args:
        path: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``.
        source: the video whose rate, time stamps and sound are used.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], source: VideoInfo) -> None:
        self.path = Path(path)
        self.source = source
        self.frames = 0
        self._av = import_av()
        self._form = check_video_suffix(self.path)
        self._resources = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._sound: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next_packet: Any = None

    def __enter__(self) -> "VideoWriter":
        file = self._resources.enter_context(replacing(self.path))
        self._container = self._av.open(file, "w", format=self._form)
        return self

    def add(self, picture: Image.Image | np.ndarray, stamp: int) -> None:
        """Add a picture.

        Args:
            picture: RGB; all pictures of a video have one size. An odd width or height is made even by repeating the
                last column or row, since video formats store colours for 2 x 2 pixels.
            stamp: time stamp, in units of the source's time base; greater than the previous one.

        Raises:
            OutputError: the picture has another size, or cannot be written.
        """
        pixels = np.asarray(picture)
        pixels = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
        height, width = pixels.shape[:2]
        if self._stream is None:
            self._open_streams(width, height)
        if (width, height) != (self._stream.width, self._stream.height):
            raise OutputError(
                f"cannot write {self.path}: its frames are {self._stream.width} x {self._stream.height} px, and this "
                f"one is {width} x {height} px"
            )
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = stamp, self.source.time_base
        try:
            self._mux_sound(stamp * self.source.time_base)
            self._container.mux(self._stream.encode(frame))
        except self._av.error.FFmpegError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is None:  # nothing to keep; the temporary file is removed
            with suppress(Exception):
                self._container.close()
            self._resources.__exit__(kind or OutputError, error or OutputError("no frames"), trace)
            if error is None:
                raise OutputError(f"{self.path} was not written: no frame of the video could be segmented")
            return
        try:
            with self._resources:
                self._container.mux(self._stream.encode(None))
                self._mux_sound(None if error is None else self.frames / self.source.rate)
                self._container.close()
        except self._av.error.FFmpegError as problem:
            raise OutputError(f"cannot write {self.path}: {problem.strerror or problem}") from problem
        finally:
            if self._sound is not None:
                self._sound.close()

    def _open_streams(self, width: int, height: int) -> None:
        encoders = _ENCODERS.get(self._form, _DEFAULT_ENCODERS)
        encoder = next((name for name in encoders if name in self._av.codecs_available), None)
        if encoder is None:
            raise OutputError(f"cannot write {self.path}: this FFmpeg has none of {', '.join(encoders)}; use .mkv")
        stream = self._container.add_stream(encoder, rate=self.source.rate, options=_OPTIONS.get(encoder, {}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = self.source.time_base
        self._stream = stream
        with suppress(self._av.error.FFmpegError, OSError):  # a picture without sound is better than none
            self._open_sound()

    def _open_sound(self) -> None:
        source = self._av.open(os.fspath(self.source.path))
        tracks = source.streams.audio
        allowed = _SOUND.get(self._form)
        if not tracks or (allowed is not None and tracks[0].codec_context.name not in allowed):
            source.close()
            return
        self._sound = source
        self._sound_stream = self._container.add_stream_from_template(tracks[0])
        self._packets = (packet for packet in source.demux(tracks[0]) if packet.dts is not None)
        self._next_packet = next(self._packets, None)

    def _mux_sound(self, end: Fraction | float | None) -> None:
        """Copy the sound up to a time in seconds; None: all that is left."""
        while self._next_packet is not None:
            packet = self._next_packet
            if end is not None and packet.pts is not None and packet.pts * packet.time_base > end:
                return
            packet.stream = self._sound_stream
            self._container.mux(packet)
            try:
                self._next_packet = next(self._packets, None)
            except (self._av.error.FFmpegError, OSError):  # damaged sound: the rest is left out
                self._next_packet = None
