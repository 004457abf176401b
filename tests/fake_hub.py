"""A hub that answers without a network, for the tests."""

import json
from pathlib import Path
from types import SimpleNamespace

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_in_cache(cache: Path, repo: str, files: dict[str, str], revision: str = "main", commit: str = COMMIT) -> Path:
    """Write files as the hub's client would have; a revision that is no commit gets its reference."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (snapshot / name).write_text(text)
    if revision != commit:
        reference = folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
    return snapshot


CLIP_FILES = {
    "config.json": json.dumps({"model_type": "clip"}),
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "preprocessor_config.json": "{}",
}


class FakeHub:
    """Repos by name and revision -> file names; takes the place of HfApi, snapshot_download and the cache."""

    def __init__(self, cache: Path, monkeypatch) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        self.cache = cache
        self.repos: dict[tuple[str, str], list[str]] = {}
        self.pulls: dict[str, list[SimpleNamespace]] = {}
        self.error: Exception | None = None
        self.fetched: list[tuple[str, str, list[str]]] = []

    def add(self, repo: str, files: list[str], revision: str = "main") -> None:
        self.repos[repo, revision] = files

    def model_info(self, repo: str, *, revision: str, timeout: float) -> SimpleNamespace:
        if self.error:
            raise self.error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.repos[repo, revision]])

    def get_repo_discussions(self, repo: str, *, discussion_type: str) -> list[SimpleNamespace]:
        assert discussion_type == "pull_request"
        return self.pulls.get(repo, [])

    def snapshot_download(self, repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects

        names = list(filter_repo_objects(self.repos[repo, revision], allow_patterns=allow_patterns))
        self.fetched.append((repo, revision, names))
        files = {name: CLIP_FILES.get(name, "{}") for name in names}
        return str(put_in_cache(self.cache, repo, files, revision))
