"""Banks: their order, merging, pruning, names, and files."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deop.bank.bank as module
from deop.bank import Bank, load_bank
from deop.bank.bank import clean_name
from deop.errors import CheckpointError, OutputError, SettingError, VocabularyError
from tests.bank.small import WIDTH, bank_of, space, unit, vocabulary

NAMES = ["cup", "mug|beaker", "-cup", "", "Plate"]


def random_parts(count, seed=0):
    random = np.random.default_rng(seed)
    return unit(random.normal(size=(count, WIDTH))), list(random.choice(NAMES, count)), random.integers(0, 4, count)


def same(first, second):
    """Whether two banks have the same content, compared value by value."""
    keys = ("regions", "name_of", "photo_of", "marked", "area")
    return (
        first == second
        and (first.names, first.photos) == (second.names, second.photos)
        and all(np.array_equal(getattr(first, key), getattr(second, key)) for key in keys)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 99))
def test_the_order_of_examples_does_not_matter(count, seed):
    regions, names, photos = random_parts(count, seed)
    order = np.random.default_rng(seed).permutation(count)
    shuffled = bank_of(regions[order], [names[i] for i in order], photos[order])
    assert same(bank_of(regions, names, photos), shuffled)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(0, 99))
def test_merged_banks_are_the_bank_of_both(count, seed):
    regions, names, photos = random_parts(count, seed)
    cut, overlap = count // 2, max(0, count // 2 - 3)  # some examples are in both
    parts = [bank_of(regions[s], names[s], photos[s]) for s in (slice(0, cut), slice(overlap, count))]
    assert same(Bank.merged(parts), bank_of(regions, names, photos))
    assert same(Bank.merged(parts[::-1]), bank_of(regions, names, photos))


def test_a_repeated_example_counts_once():
    regions, names, photos = random_parts(6)
    twice = bank_of(np.concatenate([regions, regions]), names * 2, [*photos, *photos])
    assert same(twice, bank_of(regions, names, photos))
    other = bank_of(np.concatenate([regions, regions[:1]]), [*names, names[0]], [*photos, 99])
    assert len(other) == 7, "the same embedding in another photo is another example"


def test_banks_of_other_models_do_not_merge():
    regions, names, photos = random_parts(4)
    first = bank_of(regions, names, photos)
    for values, text in (
        ({"probe": unit(np.random.default_rng(8).normal(size=(3, WIDTH))), "model": "big"}, "from small and big"),
        ({"precision": "int8"}, "learned in float32, the other in int8"),
        ({"encoding": {"anchors": "patch"}}, "anchors 'pool'.*anchors 'patch'"),
    ):
        with pytest.raises(SettingError, match=text):
            Bank.merged([first, bank_of(regions, names, photos, **values)])
    joined = Bank.merged([bank_of(regions, names, photos, note=note) for note in ("CC BY", "mine", "CC BY")])
    assert joined.space.note == "CC BY; mine"


def test_names_that_clash():
    regions, *_ = random_parts(2)
    with pytest.raises(VocabularyError, match=r"'mug\|cup' and 'cup'|'cup' and 'mug\|cup'"):
        bank_of(regions, ["cup", "mug|cup"])
    with pytest.raises(VocabularyError, match="share a word"):
        Bank.merged([bank_of(regions[:1], ["cup"]), bank_of(regions[1:], ["Cup|mug"])])
    assert bank_of(regions, ["cup", "-cup"]).names == ("-cup", "cup")
    assert Bank.merged([bank_of(regions[:1], ["cup"]), bank_of(regions[1:], ["Cup"])]).names == ("Cup",)
    both = bank_of(regions, ["sofa|couch", "cup"])
    with pytest.raises(VocabularyError, match="are one name of the bank"):
        both.columns(vocabulary("sofa, couch"))
    assert both.columns(vocabulary("wall, Couch, mug|cup")).tolist() == [2, 1]
    assert both.columns(vocabulary("wall", background="cup")).tolist() == [1, -1]


@pytest.mark.parametrize("name", [" ", "-", "cup||mug", "-|", 3, None])
def test_blank_names(name):
    with pytest.raises(VocabularyError):
        clean_name(name)


def test_forgetting_and_limits():
    regions, names, photos = random_parts(30)
    bank = bank_of(regions, names, photos)
    assert "cup" not in bank.without(["CUP"]).names
    assert "-cup" in bank.without(["CUP"]).names
    assert "mug|beaker" not in bank.without(["beaker"]).names
    with pytest.raises(VocabularyError, match="no examples of 'spoon': it has"):
        bank.without(["spoon"])
    limited = bank.limited(4)
    assert all(count <= 4 for count, _ in limited.counts().values())
    for name, (count, spread) in limited.counts().items():
        full, of = bank.counts()[name]
        assert count == min(full, 4)
        assert spread == min(of, 4), "as many photos as possible"
    assert same(bank.limited(30), bank)
    with pytest.raises(SettingError):
        bank.limited(0)


def test_too_many_regions(monkeypatch, tmp_path):
    path = bank_of(*random_parts(5)).save(tmp_path / "five")
    monkeypatch.setattr(module, "MAX_REGIONS", 4)
    with pytest.raises(SettingError, match="5 regions, and the limit is 4"):
        bank_of(*random_parts(5))
    with pytest.raises(SettingError, match=r"five\.safetensors has 5 regions"):
        load_bank(path)


def test_files(tmp_path):
    bank = bank_of(*random_parts(20), note="photos of my desk", license="MIT")
    path = bank.save(tmp_path / "desk")
    assert path.name == "desk.safetensors"
    read = load_bank(tmp_path / "desk")
    assert same(read, bank)
    assert (read.space.note, read.space.license, read.space.model) == ("photos of my desk", "MIT", "small")
    assert not read.regions.flags.writeable, "mapped from the file"
    safetensors = pytest.importorskip("safetensors.numpy")
    stored = safetensors.load_file(path)
    assert np.array_equal(stored["regions"], bank.regions)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError):
        bank.save(tmp_path / "folder")


def test_a_name_costs_kilobytes(tmp_path):
    random = np.random.default_rng(0)
    regions = unit(random.normal(size=(200, 512)))
    probe = unit(random.normal(size=(3, 512)))
    path = bank_of(regions, ["cup"] * 200, probe=probe).save(tmp_path / "one")
    assert path.stat().st_size < 200 * (2 * 512 + 13) + 20_000


def test_damaged_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"no bank at .*nothing\.safetensors: create it"):
        load_bank(tmp_path / "nothing")
    path = bank_of(*random_parts(20)).save(tmp_path / "whole")
    content = path.read_bytes()
    broken = tmp_path / "broken.safetensors"
    for change in (b"", content[:-3], content[: len(content) // 2], b"hello" + content, content[:-40] + b"\1" * 40):
        broken.write_bytes(change)
        with pytest.raises(CheckpointError):
            load_bank(broken)
    pytest.importorskip("safetensors.numpy").save_file({"regions": np.zeros((2, 4), np.float16)}, broken)
    with pytest.raises(CheckpointError, match="is no bank"):
        load_bank(broken)


def test_parts_that_do_not_fit(tmp_path):
    """Also where the SHA-256 is right: a file that another program wrote."""
    from deop.bank import storage

    bank = bank_of(*random_parts(6))
    for key, value in (("name_of", np.full(6, 9)), ("regions", np.full((6, WIDTH), np.nan)), ("area", np.zeros(5))):
        changed = object.__new__(Bank)
        changed.__dict__.update({**bank.__dict__, key: value})
        path = storage.save_bank(changed, tmp_path / "odd")
        with pytest.raises(CheckpointError, match="is damaged"):
            load_bank(path)


def test_a_file_of_a_newer_version(tmp_path):
    path = bank_of(*random_parts(3)).save(tmp_path / "bank")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["deop.bank"]) | {"version": 2}
    header["__metadata__"]["deop.bank"] = json.dumps(described)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(CheckpointError, match="has version 2, and deop"):
        load_bank(path)


def test_an_empty_bank(tmp_path):
    bank = Bank.empty(space(), WIDTH)
    path = bank.save(tmp_path / "empty")
    assert len(load_bank(path)) == 0
    assert bank.limited(3) == bank
    assert bank.columns(vocabulary("cup")).tolist() == []
