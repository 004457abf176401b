"""Videos, made by the tests with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deop.errors import ImageError, OutputError, SettingError
from deop.video.reading import is_video, open_video
from deop.video.segmenting import segment_frames
from deop.video.smoothing import LabelSmoother
from deop.video.writing import VideoWriter

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 220), (230, 200, 40)]


def make_video(path: Path, frames=12, size=(64, 48), *, sound=False, codec="libx264", stamps=None) -> Path:
    """A video whose frame n has the colour n // 3 of COLOURS."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "10", "g": "1"} if codec == "libx264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        voice = container.add_stream("aac", rate=8000) if sound else None
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), COLOURS[index // 3 % 4], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = stamps[index] if stamps else 100 * index
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            samples = np.zeros((1, 800 * frames), np.float32)
            tone = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = 8000, 0, Fraction(1, 8000)
            container.mux(voice.encode(tone))
            container.mux(voice.encode(None))
    return path


def frames_of(path):
    with open_video(path) as (info, frames):
        return info, list(frames)


class Thirds:
    """A stand-in for a model: the label of a pixel is the COLOURS index nearest to its colour."""

    def __init__(self):
        self.photos = 0

    def vocabulary(self, names, **options):
        return tuple(names)

    def embed(self, vocabulary):
        pass

    def segment(self, photo, names, **options):
        from deop.results.segmentation import Segmentation

        self.photos += 1
        distance = np.abs(photo[..., None, :].astype(int) - np.array(COLOURS)).sum(-1)
        return Segmentation.from_semantic(photo, names, distance.argmin(-1).astype(np.int32))


NAMES = ["red", "green", "blue", "yellow"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_frames_are_read_with_their_times(tmp_path, suffix):
    path = make_video(tmp_path / f"clip{suffix}", codec="mpeg4" if suffix == ".avi" else "libx264")
    info, frames = frames_of(path)
    assert info.size == (48, 64)
    assert [frame.index for frame in frames] == list(range(12))
    if suffix != ".avi":  # AVI has no time stamps of its own
        assert info.frames in (0, 12)
        assert [round(frame.time, 3) for frame in frames] == [round(index / 10, 3) for index in range(12)]
    for frame in frames:
        assert np.abs(frame.pixels.mean((0, 1)) - COLOURS[frame.index // 3]).max() < 12


def test_uneven_times_are_kept_from_input_to_output(tmp_path):
    stamps = [0, 40, 100, 400, 410, 900]
    info, frames = frames_of(make_video(tmp_path / "a.mkv", 6, stamps=stamps))
    assert [round(1000 * frame.time) for frame in frames] == stamps
    with VideoWriter(tmp_path / "b.mkv", info) as writer:
        for frame in frames:
            writer.add(frame.pixels, frame.stamp)
    assert [round(1000 * frame.time) for frame in frames_of(tmp_path / "b.mkv")[1]] == stamps


def test_a_damaged_frame_does_not_end_the_video(tmp_path):
    path = make_video(tmp_path / "clip.mkv")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    position, size = packets[5]
    data[position + 20 : position + size] = bytes(size - 20)  # the content of one frame; its header stays
    path.write_bytes(data)
    _, frames = frames_of(path)
    assert sum(frame.pixels is not None and not frame.error for frame in frames) >= 10
    assert any(frame.error for frame in frames)
    assert frames[-1].pixels is not None
    results = list(segment_frames(Thirds(), frames, NAMES))
    assert len(results) == len(frames)
    assert isinstance(results[-1].result.label_map, np.ndarray)


def test_a_truncated_video_gives_the_frames_before_the_end(tmp_path):
    path = make_video(tmp_path / "clip.mkv", 24)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    _, frames = frames_of(path)
    assert 5 < sum(frame.pixels is not None for frame in frames) < 24


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "cannot read the video"), (b"text" * 500, "cannot read the video")],
)
def test_a_file_that_is_not_a_video_is_named(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as error, open_video(path):
        pass
    assert "clip.mp4" in str(error.value)


def test_a_file_with_sound_only_is_named(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        voice = container.add_stream("aac", rate=8000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 8000, 0
        container.mux(voice.encode(tone))
        container.mux(voice.encode(None))
    with pytest.raises(ImageError, match="no picture, only audio"), open_video(tmp_path / "song.mp4"):
        pass


@pytest.mark.parametrize(("suffix", "size"), [(".mp4", (64, 48)), (".webm", (64, 48)), (".mp4", (63, 47))])
def test_pictures_are_written_with_the_sound_of_the_source(tmp_path, suffix, size):
    info, frames = frames_of(make_video(tmp_path / "clip.mp4", sound=True))
    with VideoWriter(tmp_path / f"out{suffix}", info) as writer:
        for frame in frames:
            writer.add(frame.pixels[: size[1], : size[0]], frame.stamp)
    written, copies = frames_of(tmp_path / f"out{suffix}")
    assert written.size == (48, 64)  # made even
    assert len(copies) == 12
    for frame, copy in zip(frames, copies, strict=True):
        assert np.abs(frame.pixels.mean((0, 1)) - copy.pixels.mean((0, 1))).max() < 12
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert len(container.streams.audio) == (suffix == ".mp4")  # WebM does not allow AAC
        if suffix == ".mp4":
            assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) > 1.1


def test_an_interrupt_keeps_the_frames_so_far(tmp_path):
    info, frames = frames_of(make_video(tmp_path / "clip.mp4"))

    def interrupted():
        yield from frames[:7]
        raise KeyboardInterrupt

    def write():
        with VideoWriter(tmp_path / "out.mp4", info) as writer:
            for frame in interrupted():
                writer.add(frame.pixels, frame.stamp)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert len(frames_of(tmp_path / "out.mp4")[1]) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_a_video_without_a_frame_leaves_no_file(tmp_path):
    info, _ = frames_of(make_video(tmp_path / "clip.mp4"))
    with pytest.raises(OutputError, match="no frame"), VideoWriter(tmp_path / "out.mp4", info):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_frames_of_another_size_and_unknown_suffixes_are_refused(tmp_path):
    info, frames = frames_of(make_video(tmp_path / "clip.mp4"))
    with pytest.raises(OutputError, match="unknown suffix"):
        VideoWriter(tmp_path / "out.gif", info)
    with VideoWriter(tmp_path / "out.mp4", info) as writer:
        writer.add(frames[0].pixels, 0)
        with pytest.raises(OutputError, match="this one is 32 x 48"):
            writer.add(frames[1].pixels[:, :32], 1)


def test_every_nth_frame_is_segmented_and_its_labels_are_reused(tmp_path):
    _, frames = frames_of(make_video(tmp_path / "clip.mp4"))
    model = Thirds()
    results = list(segment_frames(model, frames, NAMES, every=4))
    assert model.photos == 3
    labels = [int(np.median(item.result.label_map)) for item in results]
    assert labels == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]  # of the frames 0, 4 and 8
    for item, frame in zip(results, frames, strict=True):
        assert item.result.photo is frame.pixels


def test_wrong_options_are_refused_before_a_frame_is_decoded():
    def frames():
        raise AssertionError("decoded")
        yield

    for options, message in [
        ({"every": 0}, "every must be an integer"),
        ({"every": 1.5}, "every must be an integer"),
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\)"),
        ({"smoothing": -0.1}, r"smoothing must be in \[0, 1\)"),
        ({"smoothing": float("nan")}, r"smoothing must be in \[0, 1\)"),
        ({"smoothing": 0.5, "mode": "panoptic"}, "semantic mode only"),
    ]:
        with pytest.raises(SettingError, match=message):
            segment_frames(Thirds(), frames(), NAMES, **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.6, 0.9])
def test_smoothing_equals_the_moving_average_of_two_labels(smoothing):
    """The formula by hand: the weight of a label is sum_n (1 - s) s^n over the frames that have it."""
    rng = np.random.default_rng(5)
    sequence = rng.integers(0, 2, (30, 6, 7)).astype(np.int32)
    frame = np.zeros((6, 7, 3), np.uint8)
    smoother = LabelSmoother(smoothing)
    average = np.stack([sequence[0] == label for label in range(2)]).astype(float)
    for index, labels in enumerate(sequence):
        if index:
            average = smoothing * average + (1 - smoothing) * np.stack([labels == label for label in range(2)])
        clear = np.abs(average[0] - average[1]) > 1e-5  # the rest are ties
        assert np.array_equal(smoother(frame, labels)[clear], average.argmax(0)[clear])


def test_smoothing_starts_again_at_a_change_of_scene():
    smoother = LabelSmoother(0.9)
    dark, bright = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 200, np.uint8)
    first, second = np.zeros((40, 40), np.int32), np.full((40, 40), 3, np.int32)
    for _ in range(5):
        smoother(dark, first)
    assert (smoother(dark, second) == 0).all()
    assert (smoother(bright, second) == 3).all()
    assert smoother(bright[:20], second[:20]).shape == (20, 40)  # another size


def test_smoothed_results_are_consistent(tmp_path):
    _, frames = frames_of(make_video(tmp_path / "clip.mp4"))
    results = [item.result for item in segment_frames(Thirds(), frames, NAMES, smoothing=0.7)]
    for result in results:
        areas = [segment.area for segment in result.segments]
        assert sum(areas) == np.count_nonzero(result.label_map >= 0)
        assert result.settings["smoothing"] == 0.7
    labels = [int(np.median(result.label_map)) for result in results]
    assert labels[0] == 0
    assert labels != [index // 3 for index in range(12)]  # later than the frames themselves


def test_videos_are_known_by_their_suffix():
    assert all(is_video(name) for name in ("a.mp4", "b.MOV", "c/d.webm"))
    assert not any(is_video(name) for name in ("a.jpg", "b.gif", "mp4"))


def test_a_video_of_a_turned_phone_is_upright(tmp_path):
    """The matrix of the track header says that players turn the frames by 90 degrees clockwise."""
    path = tmp_path / "clip.mp4"
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = (255, 0, 0)  # top left
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")), *stream.encode(None)):
            container.mux(packet)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    assert data[start : start + 4] == (0x10000).to_bytes(4, "big")  # the identity so far
    matrix = [0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000]
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    info, frames = frames_of(path)
    assert info.size == (64, 48)
    corner = frames[0].pixels[4:28, 28:44].mean((0, 1))  # turned clockwise, the top left is at the top right
    assert corner[0] > 200
    assert frames[0].pixels[40:, :].max() < 60
