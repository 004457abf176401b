"""Exported folders of MetaCLIP 2 and TIPSv2: regions of given masks and texts equal those of torch."""

import numpy as np
import pytest

import deop
from deop.export.folder import export_model
from tests.tiny_towers import write_tiny_metaclip2, write_tiny_tips

TEXTS = ["cat", "a", "a dog and a cat", "cat cat", "", "dog, " * 60]


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_tiny_metaclip2, write_tiny_tips])
@pytest.mark.parametrize("severance", ["maskclip", "region:similarity=k:residual=0:mlp=no"])
def test_regions_and_texts(tmp_path, write, severance):
    pytest.importorskip("onnxscript")
    model = deop.load(write(tmp_path / "tower"), engine="torch")
    folder = export_model(model, tmp_path / "model", severance=severance)
    runtime = deop.load(folder, engine="onnx")
    generator = np.random.default_rng(0)
    for size in ((70, 90), (64, 40)):
        photo, masks = generator.integers(0, 256, (*size, 3), np.uint8), generator.random((3, *size)) > 0.5
        expected = model.encode([photo], [masks], severance=severance)[0].regions.numpy()
        np.testing.assert_allclose(runtime.encode([photo], [masks])[0].regions, expected, atol=1e-4)
    np.testing.assert_allclose(runtime.text.embed(TEXTS), model.text.embed(TEXTS).detach().numpy(), atol=1e-4)
    for text in TEXTS[:4]:
        assert runtime.text.embed([text]).shape == (1, 32)
        assert np.abs(runtime.text.embed([text]) - model.text.embed([text]).detach().numpy()).max() < 1e-4
    assert runtime.text.context_length - runtime.text.count_tokens("cat") == (
        model.text.context_length - model.text.count_tokens("cat")
    )
    assert runtime.settings.temperature == model.settings.temperature
