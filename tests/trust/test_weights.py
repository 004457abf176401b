"""Weights of strangers: what does not belong to the model is refused by name, and nothing in a folder is run.

One test for each attempt. Damaged graphs and configs through the command line: tests/light/test_folders.py.
"""

import ast
import hashlib
import json
import os
import pickle
import resource
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import deop
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.feature_network import FeatureNetwork
from deop.errors import CheckpointError, DeopError
from deop.model import DeOP
from deop.networks.loading import read_weights
from deop.proposals.from_folder import proposer_from_folder
from deop.weights.checkpoints import read_checkpoint
from deop.weights.conversion import convert
from deop.zoo import NANO
from tests.proposals.tiny_networks import mask2former, sam
from tests.tiny import write_tiny_clip, write_tiny_siglip
from tests.tiny_towers import write_tiny_metaclip2, write_tiny_tips

SOURCE = Path(__file__).parents[2] / "src" / "deop"
WEIGHTS = "model.safetensors"


def write_own(folder: Path) -> Path:
    """A model in deop's own format."""
    clip = write_tiny_clip(folder.with_name("clip-of-own"), layers=2)
    return DeOP(CLIPVision.from_folder(clip), CLIPText.from_folder(clip)).save_pretrained(folder)


def write_masks(folder: Path) -> Path:
    mask2former().save_pretrained(folder)
    return folder


def write_sam(folder: Path) -> Path:
    sam().save_pretrained(folder)
    return folder


def write_dino(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def load(folder: Path) -> object:
    return deop.load(folder, engine="torch")


LAYOUTS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "own": (write_own, load),
    "clip": (lambda folder: write_tiny_clip(folder, layers=2), load),
    "siglip": (write_tiny_siglip, load),
    "metaclip2": (write_tiny_metaclip2, load),
    "tips": (write_tiny_tips, load),
    "mask2former": (write_masks, proposer_from_folder),
    "sam": (write_sam, proposer_from_folder),
    "dino": (write_dino, FeatureNetwork.from_folder),
}
ENCODERS = ("clip", "siglip", "metaclip2", "tips")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Callable[[str], Path]:
    """A small model of a layout, written once."""
    root, written = tmp_path_factory.mktemp("layouts"), {}

    def original(layout: str) -> Path:
        if layout not in written:
            written[layout] = LAYOUTS[layout][0](root / layout)
        return written[layout]

    return original


@pytest.fixture
def copy(originals, tmp_path) -> Callable[[str], Path]:
    return lambda layout: shutil.copytree(originals(layout), tmp_path / layout)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], str]) -> str:
    """Change the tensors of a folder, and list the new hash where the folder has one. Returns the name to be named."""
    state = load_file(folder / WEIGHTS)
    name = change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    list_again(folder)
    return name


def list_again(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    if "sha256" in config:
        config["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        (folder / "config.json").write_text(json.dumps(config))


def a_matrix(state: dict[str, torch.Tensor]) -> str:
    """A weight in the middle of a vision network."""
    keys = [key for key in state if state[key].ndim == 2 and min(state[key].shape) > 4 and "text" not in key]
    return keys[len(keys) // 2]


def last_part(name: str) -> str:
    """What a name in a file and deop's own name for it have in common: weight or bias."""
    return name.rsplit(".", 1)[-1]


def missing(state: dict[str, torch.Tensor]) -> str:
    name = a_matrix(state)
    del state[name]
    return last_part(name)


def wrong_shape(state: dict[str, torch.Tensor]) -> str:
    name = a_matrix(state)
    state[name] = torch.zeros(3, 5)
    return last_part(name)


def wrong_type(state: dict[str, torch.Tensor]) -> str:
    name = a_matrix(state)
    state[name] = torch.zeros(state[name].shape, dtype=torch.int32)
    return last_part(name)


def surplus(state: dict[str, torch.Tensor]) -> str:
    state["backdoor.weight"] = torch.zeros(2)
    return "backdoor.weight"


@pytest.mark.parametrize("change", [missing, wrong_shape], ids=lambda change: change.__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_do_not_fit_are_named(layout, change, copy):
    folder = copy(layout)
    name = rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        LAYOUTS[layout][1](folder)
    assert name in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("layout", ["own", *ENCODERS])
def test_numbers_of_another_type_are_named(layout, copy):
    folder = copy(layout)
    name = rewrite(folder, wrong_type)
    with pytest.raises(CheckpointError, match=rf"{name} is torch.int32, expected torch.float32|do not fit"):
        LAYOUTS[layout][1](folder)


@pytest.mark.parametrize("layout", ["own"])
def test_surplus_tensors_are_named(layout, copy):
    folder = copy(layout)
    name = rewrite(folder, surplus)
    with pytest.raises(CheckpointError, match=f"{name} is not known"):
        LAYOUTS[layout][1](folder)


def test_surplus_tensors_of_a_tower_are_named(copy):
    folder = copy("clip")

    def add(state):
        state["vision_model.backdoor.weight"] = torch.zeros(2)
        return "backdoor"

    with pytest.raises(CheckpointError, match=rewrite(folder, add)):
        load(folder)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_file(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def endless_header(path: Path) -> None:
    """A length of the header of 2^62 bytes."""
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])


DAMAGES = (truncated, header_only, empty, another_file, directory, pipe, device, endless_header)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("layout", ["own", "clip", "mask2former", "dino"])
def test_files_that_are_no_weights_are_named(layout, damage, copy):
    folder = copy(layout)
    damage(folder / WEIGHTS)
    with pytest.raises(CheckpointError) as caught:
        within_seconds(lambda: LAYOUTS[layout][1](folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", [empty, another_file, directory, pipe, device], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_descriptions_that_are_no_files_are_named(name, damage, copy):
    folder = copy("clip")
    damage(folder / name)
    if name == "tokenizer.json":  # or the older form of the same tokenizer is read instead
        (folder / "vocab.json").unlink()
    with pytest.raises(DeopError) as caught:
        within_seconds(lambda: load(folder))
    assert str(folder) in str(caught.value)


def test_a_huge_description_is_not_read(copy):
    folder = copy("clip")
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: no space on the disk
    with pytest.raises(CheckpointError, match=r"config\.json.*at most"):
        within_seconds(lambda: load(folder))


def within_seconds(function: Callable[[], object], limit: float = 240) -> object:
    """Call a function in a thread, so that one that waits for ever fails the test instead of hanging it."""
    results: list[object] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(limit)
    assert results, "it waits for ever"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def test_weights_of_another_model_of_the_same_shapes_are_refused(copy, tmp_path):
    folder = copy("own")
    rewrite_only = load_file(folder / WEIGHTS)
    save_file({key: value + 1 if value.is_floating_point() else value for key, value in rewrite_only.items()},
              folder / WEIGHTS, metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load(folder)


@pytest.mark.parametrize(
    ("layout", "keys", "value"),
    [
        ("own", ("encoder", "config", "hidden"), 10**9),
        ("own", ("encoder", "config", "width"), 2**20),
        ("own", ("encoder", "config", "layers"), 10**7),
        ("own", ("text", "config", "tokens"), 10**10),
        ("clip", ("vision_config", "intermediate_size"), 10**9),
        ("clip", ("vision_config", "num_hidden_layers"), 10**6),
        ("clip", ("text_config", "vocab_size"), 10**9),
        ("siglip", ("vision_config", "intermediate_size"), 10**9),
        ("mask2former", ("dim_feedforward",), 10**9),
        ("mask2former", ("num_queries",), 10**9),
        ("dino", ("intermediate_size",), 10**9),
    ],
    ids=str,
)
def test_a_config_that_describes_huge_networks_is_refused_before_memory_is_used(layout, keys, value, copy):
    folder = copy(layout)
    config = json.loads((folder / "config.json").read_text())
    place = config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        within_seconds(lambda: LAYOUTS[layout][1](folder))
    assert str(folder) in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("layout", ["clip", "mask2former", "dino"])
def test_weights_that_changed_in_the_hubs_cache_are_refused(layout, copy, tmp_path):
    """The cache names large files by their SHA-256, and a snapshot links to them."""
    folder = copy(layout)
    content = (folder / WEIGHTS).read_bytes()
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(blob)
    LAYOUTS[layout][1](folder)
    changed = bytearray(content)
    changed[-1] ^= 1
    blob.write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its SHA-256"):
        LAYOUTS[layout][1](folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "a/b.safetensors", "..\\x.safetensors"])
@pytest.mark.parametrize("layout", ["clip", "mask2former", "dino"])
def test_an_index_that_leaves_the_folder_is_refused(layout, name, copy):
    folder = copy(layout)
    keys = load_file(folder / WEIGHTS)
    shutil.move(folder / WEIGHTS, folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError) as caught:
        LAYOUTS[layout][1](folder)
    assert str(folder) in str(caught.value)


# ---- nothing in a folder is run


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mknod, (str(self.trace),)


@pytest.fixture
def trace(tmp_path) -> Path:
    """The file that a payload writes."""
    return tmp_path / "the-payload-has-run"


def test_the_payload_works(trace):
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()


def as_pickle(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps({"model": payload}))


def as_torch_zip(path: Path, payload: Payload) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "other": payload}, path)


def as_legacy_torch(path: Path, payload: Payload) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "other": payload}, path, _use_new_zipfile_serialization=False)


WRITERS = (as_pickle, as_torch_zip, as_legacy_torch)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
@pytest.mark.parametrize("layout", ["own", "clip", "mask2former", "dino"])
def test_a_malicious_pickle_in_a_folder_is_not_run(layout, name, write, copy, trace):
    folder = copy(layout)
    (folder / WEIGHTS).unlink()
    write(folder / name, Payload(trace))
    list_again(folder) if name == WEIGHTS else None
    with pytest.raises(DeopError) as caught:
        LAYOUTS[layout][1](folder)
    assert str(folder) in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("command", ["segment", "export", "convert", "evaluate", "bench"])
def test_commands_refuse_a_malicious_folder_and_write_nothing(command, copy, tmp_path, trace, capfd, monkeypatch):
    from deop.cli import main

    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    folder = copy("clip")
    (folder / WEIGHTS).unlink()
    as_torch_zip(folder / "pytorch_model.bin", Payload(trace))
    data = shutil.copytree(Path(__file__).parents[1] / "fixtures" / "photos", tmp_path / "data")
    photo = next(path for path in data.rglob("*") if path.suffix in (".jpg", ".png"))
    arguments = {
        "segment": [photo, "-c", "cat", "--model", folder, "-o", "out.png"],
        "export": [folder, "out"],
        "convert": [folder, "out"],
        "evaluate": [data, "--model", folder],
        "bench": [folder],
    }[command]
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        main([command, *map(str, arguments)])
    _, err = capfd.readouterr()
    assert ended.value.code, err
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert not trace.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("name", ["evil.pth", "evil.bin", "evil.ckpt", "evil.safetensors", "evil"])
def test_a_malicious_pickle_is_converted_without_running_it(name, write, tmp_path, trace):
    write(tmp_path / name, Payload(trace))
    for attempt in (convert, lambda path, _: read_checkpoint(path), lambda path, _: deop.load(path)):
        with pytest.raises(DeopError):
            attempt(tmp_path / name, tmp_path / "out")
    if name.endswith(".safetensors"):
        with pytest.raises(CheckpointError):
            read_weights(tmp_path / name)
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_a_malicious_pickle_in_an_array_file_is_not_run(tmp_path, trace):
    """Masks and saved results are arrays of numpy, which may contain pickled objects."""
    from deop.images.masks import read_masks
    from deop.results.segmentation import Segmentation

    objects = np.array([Payload(trace)], object)
    np.save(tmp_path / "masks.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "result.npz", allow_pickle=True, masks=objects, label_map=objects, names=objects)
    for attempt in (
        lambda: read_masks(tmp_path / "masks.npy"),
        lambda: read_masks(tmp_path / "result.npz"),
        lambda: Segmentation.load(tmp_path / "result.npz"),
    ):
        with pytest.raises(DeopError):
            attempt()
    assert not trace.exists()


@pytest.mark.parametrize("layout", ["clip", "siglip", "mask2former", "dino"])
def test_code_of_a_folder_is_not_run(layout, copy, trace):
    """transformers runs code that config.json or tokenizer_config.json name, if it is allowed to, or asks for it."""
    folder = copy(layout)
    (folder / "evil.py").write_text(f"import os\nos.mknod({str(trace)!r})\nclass Evil: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor", "AutoBackbone")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = folder / name
        values = json.loads(path.read_text()) if path.exists() else {}
        values["auto_map"] = dict.fromkeys(names, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        values |= {"tokenizer_class": "Evil"} if name.startswith("tok") else {}
        path.write_text(json.dumps(values))
    with suppress(DeopError):  # whether its own form of the model is known or not
        LAYOUTS[layout][1](folder)
    assert not trace.exists()


def test_a_tokenizer_that_needs_code_is_refused(copy, trace):
    from deop.encoders.text_tower import read_tokenizer

    folder = copy("clip")
    (folder / "evil.py").write_text(f"import os\nos.mknod({str(trace)!r})\nclass Evil: pass\n")
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    for name in ("tokenizer.json", "merges.txt"):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes(b"")
    values = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="tokenizer") as caught:
        within_seconds(lambda: read_tokenizer(folder))
    assert "trust_remote_code" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("layout", ["mask2former"])
def test_a_configuration_that_names_another_model_is_refused(layout, copy, monkeypatch):
    """transformers would look it up on the hub, and read its configuration from there."""
    import socket

    def no_network(*arguments, **options):
        raise AssertionError("it uses the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    folder = copy(layout)
    config = json.loads((folder / "config.json").read_text())
    for name in ("org/evil", "../other", "resnet50"):
        config |= {"backbone_config": None, "backbone": name}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=name):
            LAYOUTS[layout][1](folder)


def test_an_adapter_is_refused(copy):
    folder = copy("mask2former")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other"}')
    with pytest.raises(CheckpointError, match="adapter_config"):
        proposer_from_folder(folder)


def calls(tree: ast.AST) -> list[tuple[str, dict[str, str]]]:
    """The calls of a module: the name as written, and the keyword arguments."""
    return [
        (ast.unparse(node.func), {word.arg or "**": ast.unparse(word.value) for word in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_only_one_module_reads_pickles():
    """Except messages between a process and its own parent, which no other process can write."""
    pipes = {"batch/worker.py", "batch/supervisor.py", "batch/ray_engine.py"}
    readers = set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        for name, words in calls(ast.parse(path.read_text(encoding="utf-8"))):
            if name == "torch.load":
                readers.add(place)
                assert words["weights_only"] == "True"
            if name in ("np.load", "numpy.load", "np.lib.format.read_array"):
                assert words["allow_pickle"] == "False", place
            if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"):
                assert place in pipes, place
            assert name not in ("eval", "exec", "torch.jit.load", "torch.hub.load", "torch.package"), place
            if name.startswith("Auto") and name.endswith(".from_pretrained"):
                assert words["trust_remote_code"] == "False", place
                assert words["local_files_only"] == "True", place
            assert words.get("trust_remote_code", "False") == "False"
    assert readers == {"weights/checkpoints.py"}


# ---- the model in the package, and exported folders


@pytest.mark.parametrize("name", ["encode.onnx", WEIGHTS, "words.txt"])
@pytest.mark.parametrize("damage", [truncated, empty, pipe, device], ids=lambda damage: damage.__name__)
def test_damaged_files_of_an_exported_folder_are_named(name, damage, tmp_path):
    folder = shutil.copytree(NANO, tmp_path / "nano")
    damage(folder / name)
    with pytest.raises(CheckpointError) as caught:
        within_seconds(lambda: deop.load(folder, engine="onnx"))
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["encode.onnx", WEIGHTS, "words.txt"])
def test_a_link_that_leaves_an_exported_folder_is_refused_unless_its_content_is_the_same(name, tmp_path):
    folder = shutil.copytree(NANO, tmp_path / "nano")
    outside = tmp_path / "outside"
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    deop.load(folder, engine="onnx")
    outside.write_bytes(outside.read_bytes() + b"\n")
    with pytest.raises(CheckpointError, match="damaged or belongs to another model"):
        deop.load(folder, engine="onnx")


def test_a_link_to_a_secret_shows_nothing_of_it(copy, tmp_path):
    secret = tmp_path / "id_ed25519"
    secret.write_text("hunter2-is-the-secret " * 20)
    for name in ("config.json", WEIGHTS, "preprocessor_config.json", "tokenizer.json"):
        folder = copy("clip")
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        if name == "tokenizer.json":
            (folder / "vocab.json").unlink()
        with pytest.raises(DeopError) as caught:
            load(folder)
        assert "hunter2" not in str(caught.value)
        shutil.rmtree(folder)


# ---- the hub


def test_a_repo_whose_index_leaves_the_folder_is_refused(hub, tmp_path):
    from deop.weights.hub import fetch
    from tests.fake_hub import CLIP_FILES

    files = {name: text for name, text in CLIP_FILES.items() if name != WEIGHTS}
    files[f"{WEIGHTS}.index.json"] = json.dumps({"weight_map": {"a": "../../../outside.safetensors"}})
    hub.add("org/evil", files | {"model-00001-of-00001.safetensors": "weights"})
    with pytest.raises(CheckpointError, match="org/evil"):
        fetch("org/evil")


def test_code_and_pickles_of_a_repo_are_not_downloaded(hub):
    from deop.weights.hub import fetch
    from tests.fake_hub import CLIP_FILES

    more = dict.fromkeys(("evil.py", "pytorch_model.bin", "setup.sh", "adapter_config.json", "a.pkl"), "x")
    hub.add("org/name", CLIP_FILES | more)
    fetch("org/name")
    ((_, _, names),) = hub.downloads
    assert not set(names) & set(more)
