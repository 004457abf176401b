"""The hub: complete folders from the cache, exact revisions, and errors that say what to do."""

import json
from types import SimpleNamespace

import pytest

from deop.errors import CheckpointError, ModelNotFoundError
from deop.files import read_json
from deop.model import DeOP
from deop.named_models import TOWERS
from deop.weights.hub import cached, fetch, is_complete, license_of, repo_cache
from deop.zoo import load, load_proposer
from tests.fake_hub import CLIP_FILES, COMMIT, put_in_cache

REPO = "some/clip"
PICKLED = {
    "config.json": CLIP_FILES["config.json"],
    "tokenizer.json": "{}",
    "pytorch_model.bin": "pickled weights",
    "README.md": "first",
}
FILES = {**PICKLED, **CLIP_FILES, "open_clip_model.safetensors": "twice", "tf_model.h5": "other"}


def test_a_cached_revision_needs_no_network(hub):
    folder = put_in_cache(hub.cache, REPO, CLIP_FILES)
    hub.error = AssertionError("the hub was asked")
    assert fetch(REPO) == folder
    assert fetch(REPO, COMMIT) == folder


def test_downloads_only_files_that_deop_reads(hub):
    hub.add(REPO, FILES)
    folder = fetch(REPO)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CLIP_FILES, "README.md"])
    assert fetch(REPO) == folder
    assert len(hub.downloads) == 1, "the second call is answered by the cache"


EXPORTED = {
    "config.json": json.dumps(
        {"format": "deop-onnx", "onnx": {"files": {"encode.onnx": "", "weights.safetensors": ""}}}
    ),
    "encode.onnx": "graph",
    "weights.safetensors": "weights",
}


def test_exported_models_are_downloaded_with_their_graphs(hub):
    hub.add(REPO, EXPORTED | {"onnx/model.onnx": "of another program"})
    folder = fetch(REPO)
    assert sorted(path.name for path in folder.iterdir()) == sorted(EXPORTED)
    (folder / "encode.onnx").unlink()
    assert not is_complete(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_interrupted_download_does_not_count_as_cached(hub, missing):
    put_in_cache(hub.cache, REPO, {name: text for name, text in CLIP_FILES.items() if name != missing})
    assert cached(REPO) is None
    hub.add(REPO, FILES)
    assert is_complete(fetch(REPO))


def test_a_folder_is_complete_only_with_all_shards(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mask2former"}')
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1-of-2.safetensors").touch()
    assert not is_complete(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").touch()
    assert is_complete(tmp_path)


@pytest.mark.parametrize("kind", TOWERS)
def test_an_encoder_is_complete_only_with_its_tokenizer(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").touch()
    assert not is_complete(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    assert is_complete(tmp_path)
    (tmp_path / "tokenizer.model").rename(tmp_path / "tokenizer.json")
    assert is_complete(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\xff"])
def test_a_folder_with_a_damaged_index_is_not_complete(hub, index):
    put_in_cache(hub.cache, REPO, {"config.json": '{"model_type": "sam"}', "model.safetensors.index.json": index})
    assert cached(REPO) is None


def test_a_broken_link_of_the_cache_is_not_a_file(tmp_path):
    for name, text in CLIP_FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    assert not is_complete(tmp_path)


def pull_request(number, author="SFconvertbot"):
    return SimpleNamespace(author=author, title="Adding `safetensors` variant of this model", num=number)


@pytest.fixture
def converted(hub):
    """A repo with pickled weights, and the pull request in which the hub's bot converted them."""
    main = hub.add(REPO, PICKLED)
    conversion = hub.add(REPO, PICKLED | {"model.safetensors": "converted"}, "refs/pr/7")
    hub.add(REPO, PICKLED | {"model.safetensors": "malicious"}, "refs/pr/3")
    hub.pulls[REPO] = [pull_request(3, "mallory"), pull_request(7)]
    return SimpleNamespace(main=main, conversion=conversion)


def weights(folder):
    return (folder / "model.safetensors").read_text()


def test_pickled_weights_are_replaced_by_the_hubs_conversion_of_them(hub, converted):
    folder = fetch(REPO)
    assert weights(folder) == "converted"
    assert [(repo, revision) for repo, revision, _ in hub.downloads] == [(REPO, converted.conversion)]
    hub.error = OSError("no network")
    for revision in ("main", converted.main, converted.conversion):
        assert fetch(REPO, revision) == folder, "found again without a network"


def test_a_conversion_is_found_although_the_readme_changed_since(hub, converted):
    hub.add(REPO, PICKLED | {"README.md": "second"})
    assert weights(fetch(REPO)) == "converted"


@pytest.mark.parametrize("changed", ["pytorch_model.bin", "config.json", "tokenizer.json"])
def test_a_conversion_of_other_files_is_refused(hub, converted, changed):
    hub.add(REPO, PICKLED | {changed: '{"model_type": "clip", "other": 1}'})
    with pytest.raises(CheckpointError, match=r"(?s)only pickled weights.*some/clip@refs/pr/7"):
        fetch(REPO)
    assert not hub.downloads
    assert weights(fetch(REPO, "refs/pr/7")) == "converted", "it can be chosen by name"


def test_a_cached_conversion_never_answers_for_another_revision(hub, converted):
    """A pinned commit with weights of its own used to get those of any conversion in the cache."""
    fetch(REPO)
    put_in_cache(hub.cache, REPO, CLIP_FILES | {"model.safetensors": "converted"}, "refs/pr/9", "9" * 40)
    pinned = hub.add(REPO, FILES | {"model.safetensors": "fine-tuned"}, "v2")
    assert cached(REPO, pinned) is None
    assert weights(fetch(REPO, pinned)) == "fine-tuned"
    other = hub.add(REPO, PICKLED | {"pytorch_model.bin": "other pickled weights"}, "v3")
    for revision in ("v3", other):
        with pytest.raises(CheckpointError, match="only pickled weights"):
            fetch(REPO, revision)
    hub.error = OSError("no network")
    with pytest.raises(ModelNotFoundError, match="v4"):
        fetch(REPO, "v4")


def test_a_recorded_conversion_is_dropped_once_the_branch_has_moved(hub, converted):
    fetch(REPO)
    put_in_cache(hub.cache, REPO, PICKLED, "main", "e" * 40)  # as transformers does when it loads the new commit
    assert cached(REPO) is None
    assert cached(REPO, converted.main) is not None
    (repo_cache(REPO) / "deop-conversions.json").write_text('{"main": []}')
    assert cached(REPO, converted.main) is None


def test_pickles_alone_are_refused_and_named(hub):
    hub.add(REPO, {"config.json": "{}", "pytorch_model.bin": "", "tokenizer.json": ""})
    with pytest.raises(CheckpointError, match=r"(?s)pytorch_model\.bin.*deop convert clip FOLDER"):
        fetch(REPO)
    assert not hub.downloads


def test_a_repo_of_another_kind_is_refused(hub):
    hub.add(REPO, {"model.gguf": ""})
    with pytest.raises(CheckpointError, match="no weights that deop can read"):
        fetch(REPO)
    hub.add(REPO, {"config.json": CLIP_FILES["config.json"], "model.safetensors": ""})  # a CLIP without its tokenizer
    with pytest.raises(CheckpointError, match="tokenizer"):
        fetch(REPO)


def test_without_a_network_the_message_says_what_to_copy_and_where(hub):
    hub.error = OSError("Name or service not known")
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(REPO, COMMIT)
    message = str(caught.value)
    for part in (REPO, "Name or service not known", f"hf download {REPO} --revision {COMMIT}", str(repo_cache(REPO))):
        assert part in message


def test_refusals_of_the_hub_are_distinguished(hub):
    from huggingface_hub import errors

    def refusal(kind):
        error = kind.__new__(kind)
        Exception.__init__(error, "refused")
        return error

    for kind, words in (
        (errors.RepositoryNotFoundError, "no model some/clip"),
        (errors.GatedRepoError, "gated"),
        (errors.RevisionNotFoundError, "no revision 'v9'"),
    ):
        hub.error = refusal(kind)
        with pytest.raises(ModelNotFoundError, match=words):
            fetch(REPO, "v9")


@pytest.mark.parametrize("name", ["a path that is missing/with spaces", "/missing/folder", "a/b/c", "a/b--c", "a\0b"])
@pytest.mark.parametrize("call", [fetch, DeOP.from_pretrained, load, load_proposer])
def test_a_missing_path_is_not_taken_for_a_repo(hub, name, call):
    hub.error = AssertionError("the hub was asked")
    with pytest.raises(ModelNotFoundError, match=r"no folder|no model named"):
        call(name)


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user/model"], ids=["long", "user"])
@pytest.mark.parametrize("call", [DeOP.from_pretrained, load, load_proposer])
def test_an_impossible_path_is_reported(hub, name, call):
    with pytest.raises(ModelNotFoundError):
        call(name)


def test_damaged_settings_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_json(tmp_path / "config.json")
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_json(tmp_path / "config.json")


def test_a_repo_of_open_clip_is_explained(hub):
    files = {"open_clip_config.json": "{}", "open_clip_model.safetensors": "weights"}
    hub.add(REPO, files)
    with pytest.raises(CheckpointError, match=r"(?s)of open_clip.*hf download some/clip.*deop convert clip FOLDER"):
        fetch(REPO)


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\nlicense: apache-2.0\r\ntags:\r\n- x\r\n---\r\ntext", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: apple-amlr\n---\n", "other (apple-amlr)"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\n---\n", "mit, cc-by-4.0"),
        ("# A title\nlicense: mit\n", "unknown"),
        ("---\nlicense: [unclosed\n---\n", "unknown"),
        ("---\n- a list\n---\n", "unknown"),
        ("---\nlicense:\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_licence_of_a_model_card(card, license, tmp_path):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    assert license_of(tmp_path) == license


def test_a_clip_and_its_proposer_have_the_licences_of_their_cards(tiny_clip, tmp_path):
    import shutil

    from tests.proposals.tiny_networks import mask2former

    clip = tmp_path / "clip"
    shutil.copytree(tiny_clip, clip)
    assert load(clip, device="cpu").card.license == "unknown"
    (clip / "README.md").write_text("---\nlicense: mit\n---\n")
    masks = tmp_path / "masks"
    mask2former().save_pretrained(masks)
    assert load(clip, proposer=masks, device="cpu").card.license == "mit; masks: unknown"
    (masks / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert load(clip, proposer=masks, device="cpu").card.license == "mit; masks: cc-by-4.0"
