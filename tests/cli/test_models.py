"""The command ``deop models``."""

import json

from deop.zoo import ZOO
from tests.fake_hub import CLIP_FILES, put_in_cache

MASK_FILES = {"config.json": '{"model_type": "mask2former"}', "model.safetensors": ""}


def cache(hub, weights, files):
    put_in_cache(hub.cache, weights.repo, files, weights.revision, weights.revision)


def test_lists_every_model_with_its_licence(deop, hub):
    done = deop("models")
    assert done.code == 0
    for name, entry in ZOO.items():
        line = next(line for line in done.out.splitlines() if line.startswith(f"{name} "))
        assert str(entry.megabytes) in line
        assert entry.encoder.license in line
        assert line.rstrip().endswith("no")


def test_says_what_the_settings_rest_on_and_that_they_were_not_measured(deop, hub, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, _, settings = deop("models").out.partition("Settings, and the published results that they follow")
    assert "Only nano was measured with deop" in settings
    for name, entry in ZOO.items():
        line = next(line for line in settings.splitlines() if line.startswith(f"{name} "))
        assert entry.usage.basis in line
        assert f"{entry.usage.short_side} pixels" in line
    best = next(line for line in settings.splitlines() if line.startswith("best-b16 "))
    assert "region, no residual, no MLP, levels 5 to 9, anchors tokens, windows 336:112, 448 pixels" in best


def test_lists_what_is_on_this_machine_without_a_network(deop, hub):
    hub.error = AssertionError("the hub was contacted")
    entry = ZOO["clip-b32"]
    cache(hub, entry.encoder, CLIP_FILES)
    line = next(line for line in deop("models").out.splitlines() if line.startswith("clip-b32"))
    assert line.split()[-1] == "encoder"
    cache(hub, entry.proposer, MASK_FILES)
    assert next(line for line in deop("models").out.splitlines() if line.startswith("clip-b32")).split()[-1] == "yes"


def test_json_has_all_details(deop, hub):
    lines = [json.loads(line) for line in deop("models", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == ["nano", *ZOO]
    assert lines[0]["on_this_machine"] == {"encoder": True, "proposer": True}
    assert lines[0]["megabytes"] <= 17
    for line in lines[1:]:
        entry = ZOO[line["name"]]
        assert line["encoder"] == vars(entry.encoder)
        assert line["proposer"]["revision"] == entry.proposer.revision
        assert line["usage"]["basis"] == entry.usage.basis
        assert line["usage"]["severance"]["kind"] == entry.usage.severance.kind
        assert line["measured"] is False
        assert line["on_this_machine"] == {"encoder": False, "proposer": False}
