"""A hub that answers without a network, for tests."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_in_cache(cache: Path, repo: str, files: dict[str, str], revision: str = "main", commit: str = COMMIT) -> Path:
    """Write files in the layout of the hub client's cache; a revision that is not a commit gets a reference."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (snapshot / name).write_text(text, encoding="utf-8")
    if revision != commit:
        reference = folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    return snapshot


CLIP_FILES = {
    "config.json": json.dumps({"model_type": "clip"}),
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "preprocessor_config.json": "{}",
}


class FakeHub:
    """Repos by name and revision; replaces HfApi, snapshot_download and the cache folder.

    ``error``, where set, is raised by every request. ``downloads`` lists (repo, revision, file names).
    """

    def __init__(self, cache: Path, monkeypatch) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        self.cache = cache
        self.commits: dict[tuple[str, str], str] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.pulls: dict[str, list[SimpleNamespace]] = {}
        self.error: Exception | None = None
        self.downloads: list[tuple[str, str, list[str]]] = []

    def add(self, repo: str, files: dict[str, str], revision: str = "main") -> str:
        """Publish files (name -> content) as a revision of a repo; returns the commit."""
        commit = hashlib.sha1(json.dumps([repo, revision, files]).encode()).hexdigest()
        self.commits[repo, revision] = self.commits[repo, commit] = commit
        self.files[commit] = files
        return commit

    def model_info(self, repo: str, *, revision: str, files_metadata: bool, timeout: float) -> SimpleNamespace:
        assert files_metadata
        if self.error:
            raise self.error
        commit = self.commits[repo, revision]
        siblings = [
            SimpleNamespace(rfilename=name, blob_id=hashlib.sha1(content.encode()).hexdigest())
            for name, content in self.files[commit].items()
        ]
        return SimpleNamespace(sha=commit, siblings=siblings)

    def get_repo_discussions(self, repo: str, *, discussion_type: str) -> list[SimpleNamespace]:
        assert discussion_type == "pull_request"
        return self.pulls.get(repo, [])

    def snapshot_download(self, repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects

        commit = self.commits[repo, revision]
        names = list(filter_repo_objects(self.files[commit], allow_patterns=allow_patterns))
        self.downloads.append((repo, revision, names))
        files = {name: self.files[commit][name] for name in names}
        return str(put_in_cache(self.cache, repo, files, revision, commit))
