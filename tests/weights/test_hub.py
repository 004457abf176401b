import json
from types import SimpleNamespace

import pytest

from deop.errors import CheckpointError, ModelNotFoundError
from deop.files import read_json
from deop.weights.hub import cached, fetch, is_whole, repo_cache
from tests.fake_hub import CLIP_FILES, COMMIT, put_in_cache

REPO = "some/clip"
FILES = [*CLIP_FILES, "README.md", "pytorch_model.bin", "open_clip_model.safetensors", "tf_model.h5"]


def test_what_is_cached_needs_no_network(hub):
    folder = put_in_cache(hub.cache, REPO, CLIP_FILES)
    hub.error = AssertionError("the hub was asked")
    assert fetch(REPO) == folder
    assert fetch(REPO, COMMIT) == folder


def test_fetches_only_what_deop_reads(hub):
    hub.add(REPO, FILES)
    folder = fetch(REPO)
    assert sorted(path.name for path in folder.iterdir()) == sorted(CLIP_FILES)
    assert fetch(REPO) == folder
    assert len(hub.fetched) == 1, "the second call is answered by the cache"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_interrupted_download_does_not_count_as_cached(hub, missing):
    put_in_cache(hub.cache, REPO, {name: text for name, text in CLIP_FILES.items() if name != missing})
    assert cached(REPO) is None
    hub.add(REPO, FILES)
    assert is_whole(fetch(REPO))


def test_shards_are_all_there_or_the_folder_is_not_whole(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mask2former"}')
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1-of-2.safetensors").touch()
    assert not is_whole(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").touch()
    assert is_whole(tmp_path)


def test_a_broken_link_of_the_cache_is_not_a_file(tmp_path):
    for name, text in CLIP_FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    assert not is_whole(tmp_path)


def test_pickles_are_replaced_by_the_hubs_own_conversion(hub):
    without = [name for name in FILES if name != "model.safetensors"]
    hub.add(REPO, without)
    hub.add(REPO, FILES, "refs/pr/7")
    hub.add(REPO, FILES, "refs/pr/3")
    title = "Adding `safetensors` variant of this model"
    hub.pulls[REPO] = [
        SimpleNamespace(author="mallory", title=title, num=3),
        SimpleNamespace(author="SFconvertbot", title=title, num=7),
    ]
    folder = fetch(REPO)
    assert [(repo, revision) for repo, revision, _ in hub.fetched] == [(REPO, "refs/pr/7")]
    hub.error = AssertionError("the hub was asked")
    assert fetch(REPO) == folder, "found again without a network"


def test_pickles_alone_are_refused_and_named(hub):
    hub.add(REPO, ["config.json", "pytorch_model.bin", "tokenizer.json"])
    with pytest.raises(CheckpointError, match=r"(?s)pytorch_model\.bin.*deop convert clip FOLDER"):
        fetch(REPO)
    assert not hub.fetched


def test_a_repo_of_another_kind_is_refused(hub):
    hub.add(REPO, ["model.gguf"])
    with pytest.raises(CheckpointError, match="no weights that deop can read"):
        fetch(REPO)
    hub.add(REPO, ["config.json", "model.safetensors"])  # a CLIP without its tokenizer
    with pytest.raises(CheckpointError, match="tokenizer"):
        fetch(REPO)


def test_without_a_network_the_message_says_what_to_bring_and_where(hub):
    hub.error = OSError("Name or service not known")
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(REPO, COMMIT)
    message = str(caught.value)
    for part in (REPO, "Name or service not known", f"hf download {REPO} --revision {COMMIT}", str(repo_cache(REPO))):
        assert part in message


def test_the_hubs_refusals_are_told_apart(hub):
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


def test_damaged_settings_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_json(tmp_path / "config.json")
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_json(tmp_path / "config.json")
