"""A folder of photos: how near the command comes to the rate at which the networks alone could go."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from deop.batch.streaming import Failure, segment_stream, write_behind
from deop.bench.report import Goal, Part, Row
from deop.bench.setup import Setup
from deop.bench.subjects import NANO_NAMES, clip_model, names, synthetic_photo
from deop.bench.timing import take_turns
from deop.images.reading import read_photo
from deop.model import DeOP
from deop.results.segmentation import Segmentation
from deop.text.vocabulary import Vocabulary

PHOTOS = 8
GPU_PHOTOS = 128
SHARE = 0.9


def folder(setup: Setup) -> Part:
    """Photos of 640 x 480 and 480 x 640 on disk to label maps on disk, as ``deop segment FOLDER --labels OUT``."""
    from deop.zoo import load

    on_cpu = setup.device.type == "cpu"
    count = 2 if setup.quick else PHOTOS if on_cpu else GPU_PHOTOS
    rows: list[Row] = []
    with TemporaryDirectory() as place:
        paths = []
        for index in range(count):
            size = (480, 640) if index % 3 else (640, 480)
            paths.append(Path(place) / f"{index:04}.jpg")
            Image.fromarray(synthetic_photo(*size, seed=index)).save(paths[-1], quality=92)
        nano = load("nano", device=setup.device, dtype=setup.dtype)
        clip = clip_model("B/16", seed=setup.seed).to(setup.device, setup.dtype)
        batches = (1,) if on_cpu else (1, 8, 32)
        for label, model, asked in (
            ("nano", nano, NANO_NAMES),
            ("B/16, R50", clip, names(20)),
        ):
            model.cache = None
            words = model.vocabulary(asked)
            some = paths if not on_cpu or model is nano else paths[: max(2, count // 2)]
            for batch in batches:
                rows.append(_row(setup, f"{label}, {len(some)} photos, batch {batch}", model, words, some, batch))
    return Part(
        "folder",
        "Photos on disk to label maps on disk",
        tuple(rows),
        "Pure: the same photos, decoded before, through the networks and to maps, nothing read or written.",
    )


def _row(setup: Setup, label: str, model: DeOP, words: Vocabulary, paths: list[Path], batch: int) -> Row:
    photos = [read_photo(path) for path in paths]

    def pure() -> None:
        for _ in segment_stream(model, photos, words, batch=batch):
            pass

    def save(number: int, result: Segmentation | Failure) -> None:
        assert isinstance(result, Segmentation), result
        result.save_labels(paths[number].with_suffix(".png"))

    def whole() -> None:
        for _ in write_behind(segment_stream(model, paths, words, batch=batch), save):
            pass

    found = take_turns({"whole": whole, "pure": pure}, setup.few, setup.device)
    rate, most = (len(paths) / found[key].p50 for key in ("whole", "pure"))
    return Row(label, found["whole"], ("pure", found["pure"]),
               {"photos/s": rate, "share": rate / most}, Goal("share", SHARE))  # fmt: skip
