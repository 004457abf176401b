"""What every engine shares works without torch: names, results and their files, labelling."""

RESULTS = """
import sys
import numpy as np
import deop.batch, deop.images, deop.results, deop.text

photo = deop.images.read_photo(np.zeros((20, 30), np.uint8))
vocabulary = deop.text.Vocabulary.parse("cat, sky")
result = deop.Segmentation.from_semantic(photo, vocabulary.names, np.zeros((20, 30), int), isthing=vocabulary.things)
assert result.save(sys.argv[1] + "/a.png", alpha=0.5).exists()
assert deop.Segmentation.load(result.save(sys.argv[1] + "/a.npz")).names == ("cat", "sky")
result.save_labels(sys.argv[1] + "/b.png")
assert deop.results.read_labels(sys.argv[1] + "/b.png")[1] == ["cat", "sky"]
assert list(deop.batch.write_behind(iter([result]), lambda number, result: None)) == [result]
"""

MODEL = """
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import deop
from deop.config import from_json
from deop.files import read_json
from deop.images.canvas import canvas_of
from deop.images.preprocessing import IMAGENET, pixel_array, resize_photo
from deop.images.reading import read_photo
from deop.labelling.classification import classify, probabilities
from deop.labelling.masks import PhotoMasks
from deop.photo_lists import check_photos
from deop.settings import Card, Settings
from deop.surface import ModelSurface
from deop.tensors import TensorFile
from deop.text.words import WordTable

folder = Path(deop.__file__).parent / "assets" / "nano"
config, file = read_json(folder / "config.json"), TensorFile(folder / "model.safetensors")


class Halves(ModelSurface):
    '''The words and settings of the model in the package, with a dog in the left half of each photo.'''

    device, cache = "cpu", None
    text = WordTable.from_folder(folder, file["text.rows"], file["text.rows::scale"])
    settings, card = from_json(Settings, config["settings"], "the model"), from_json(Card, config["card"], "the card")

    def encode(self, photos, masks=None, **options):
        check_photos(photos, masks)
        return [self.encode_photo(read_photo(photo)) for photo in photos]

    def encode_photo(self, photo):
        canvas = canvas_of(photo, self.settings.resize)
        pixels = pixel_array(resize_photo(photo, self.settings.resize), IMAGENET, self.settings.resize.divisor)
        assert pixels.shape[1:] == canvas.padded
        left = np.where(np.arange(pixels.shape[2] // 4) < pixels.shape[2] // 8, np.float32(20), np.float32(-20))
        logits = np.stack([np.tile(row, (pixels.shape[1] // 4, 1)) for row in (left, -left)])
        rows = self.text.embed(["dog", "grass"])
        regions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return SimpleNamespace(
            photo=photo, canvas=canvas, masks=PhotoMasks(logits), regions=regions, settings={}, source=None,
            masks_are_instances=False,
        )

    def class_probabilities(self, encoded, names):
        return probabilities(classify(encoded.regions, self.embed(self.vocabulary(names))))


photo = np.zeros((448, 448, 3), np.uint8)
for mode in ("semantic", "panoptic", "instance"):
    result = Halves().segment(photo, "cat, dog|puppy, grass", mode=mode, heatmaps="dog")
    assert {segment.name for segment in result.segments} == {"dog", *(["grass"] if mode != "instance" else [])}
    assert result.heatmaps["dog"][:, :200].min() > 0.5 > result.heatmaps["dog"][:, 250:].max()
results = Halves().segment([photo, photo], "dog, background", background="wall")
assert all((result.label_map[:, :200] == 0).all() for result in results)
"""


def test_results_are_drawn_written_and_read(program):
    process = program(RESULTS, program.folder)
    assert process.returncode == 0, process.stderr


def test_a_model_of_another_engine(program):
    """``ModelSurface`` with networks that the test stands in for."""
    process = program(MODEL)
    assert process.returncode == 0, process.stderr
