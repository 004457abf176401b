"""Malformed model folders, through the command line: refused by name, before anything is computed or written."""

import hashlib
import json
import shutil

import pytest

from deop.zoo import NANO

GRAPH, WEIGHTS = "encode.onnx", "model.safetensors"


@pytest.fixture
def folder(deop, photo):
    """A copy of the built-in model in the working directory."""
    return shutil.copytree(NANO, deop.folder / "model")


def change_config(folder, change):
    """Apply a function to the content of config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def list_again(folder, name):
    """Write the SHA-256 of a file that was changed into the config."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change_config(folder, lambda config: config["onnx"]["files"].update({name: digest}))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damaged_weights(folder):
    flip_a_byte(folder / WEIGHTS)
    return WEIGHTS


def damaged_graph(folder):
    flip_a_byte(folder / GRAPH)
    return GRAPH


def truncated_graph(folder):
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes()[:1000])
    list_again(folder, GRAPH)
    return GRAPH


def missing_graph(folder):
    (folder / GRAPH).unlink()
    return GRAPH


def empty_weights(folder):
    (folder / WEIGHTS).write_bytes(b"")
    list_again(folder, WEIGHTS)
    return WEIGHTS


def graph_that_is_no_graph(folder):
    (folder / GRAPH).write_bytes(b"no graph at all" * 100)
    list_again(folder, GRAPH)
    return GRAPH


def newer_version(folder):
    change_config(folder, lambda config: config["onnx"].update(version=2))
    return "version"


def unknown_key(folder):
    change_config(folder, lambda config: config["onnx"].update(surprise=1))
    return "surprise"


def path_outside(folder):
    shutil.move(folder / GRAPH, folder.parent / GRAPH)

    def point_outside(config):
        files, graphs = config["onnx"]["files"], next(iter(config["onnx"]["graphs"].values()))
        files[f"../{GRAPH}"] = files.pop(GRAPH)
        graphs["encode"] = f"../{GRAPH}"

    change_config(folder, point_outside)
    return f"../{GRAPH}"


def external_data_outside(folder):
    """The graph refers to a file of the same content outside the folder."""
    other = f"../{WEIGHTS[3:]}"
    assert len(other) == len(WEIGHTS), "lengths in a graph's encoding must not change"
    shutil.copy(folder / WEIGHTS, folder / other)
    content = (folder / GRAPH).read_bytes()
    assert WEIGHTS.encode() in content
    (folder / GRAPH).write_bytes(content.replace(WEIGHTS.encode(), other.encode()))
    list_again(folder, GRAPH)
    return other


def config_that_is_empty(folder):
    (folder / "config.json").write_bytes(b"")
    return "config.json"


def weights_of_another_model(folder):
    """Other numbers of the same shapes: the graph was exported with those of its metadata."""
    flip_a_byte(folder / WEIGHTS)
    list_again(folder, WEIGHTS)
    return WEIGHTS


@pytest.mark.parametrize(
    "damage",
    [
        damaged_weights, damaged_graph, truncated_graph, missing_graph, empty_weights, graph_that_is_no_graph,
        newer_version, unknown_key, path_outside, external_data_outside, config_that_is_empty, weights_of_another_model,
    ],
    ids=lambda function: function.__name__,
)  # fmt: skip
def test_a_malformed_folder_is_refused_by_name(deop, folder, damage):
    name = damage(folder)
    before = sorted(path.name for path in deop.folder.iterdir())
    process = deop("segment", "cat.png", "-c", "cat", "--model", folder)
    message = " ".join(process.stderr.split())
    assert process.returncode == 4, message
    assert name in message
    assert message.count("error:") == 1
    assert "Traceback" not in message
    assert "unexpected" not in message
    assert sorted(path.name for path in deop.folder.iterdir()) == before


def test_the_copy_itself_works(deop, folder):
    process = deop("segment", "cat.png", "-c", "cat, background", "--model", folder)
    assert process.returncode == 0, process.stderr
    assert (deop.folder / "cat.deop.png").exists()
