"""Model folders from the Hugging Face hub: fetched once, then used without a network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from deop.errors import CheckpointError, ModelNotFoundError
from deop.files import PICKLE_SUFFIXES, read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""What deop reads of a repo. Not ``*.safetensors``: many repos hold the same weights again in another layout."""

_CONVERTER, _CONVERSION = "SFconvertbot", "Adding `safetensors` variant of this model"


class HubUnreachableError(ModelNotFoundError):
    """A repo is not on this machine, and the hub does not answer; ``reason`` says why."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch(repo: str, revision: str = "main") -> Path:
    """The folder of a hub repo, from this machine's cache where it is whole, else from the hub, with a progress bar.

    Where the revision holds pickled weights only, the hub's own conversion of them is taken (the pull request that its
    converter opened), as transformers does.

    Args:
        repo: "org/name".
        revision: branch, tag or commit.

    Returns:
        A folder with ``config.json``, safetensors weights and, where the repo has them, tokenizer files.

    Raises:
        ModelNotFoundError: not on this machine, and no network, no such repo or revision, or no access.
        CheckpointError: the repo holds no safetensors weights.
    """
    if folder := cached(repo, revision):
        return folder
    from huggingface_hub import HfApi, snapshot_download

    try:
        # One request, not repeated: without a network this fails at once, where snapshot_download tries for 20 s.
        files = _listing(HfApi(), repo, revision)
        if not _has_weights(files):
            revision = _conversion(HfApi(), repo, files)
        snapshot_download(repo, revision=revision, allow_patterns=list(FILES))
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client raises errors of the HTTP library of its day
        _explain(repo, revision, error)
    folder = cached(repo, revision)
    if folder is None:
        raise CheckpointError(f"{repo} is no model that deop can read: it lacks config.json or a tokenizer")
    return folder


def cached(repo: str, revision: str = "main") -> Path | None:
    """The whole folder of a repo in this machine's cache, or None; no network is used.

    Args:
        repo: "org/name".
        revision: branch, tag or commit. Fetched conversions of its pickled weights count too.
    """
    from huggingface_hub import try_to_load_from_cache

    conversions = sorted((repo_cache(repo) / "refs" / "refs" / "pr").glob("*"))
    for candidate in [revision, *(f"refs/pr/{path.name}" for path in conversions)]:
        config = try_to_load_from_cache(repo, "config.json", revision=candidate)
        if isinstance(config, str) and is_whole(Path(config).parent):
            return Path(config).parent
    return None


def repo_cache(repo: str) -> Path:
    """Where the hub's cache keeps a repo, whether it is there or not (HF_HOME and HF_HUB_CACHE move the cache)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def is_whole(folder: Path) -> bool:
    """Whether a folder has what deop needs of it: config, all weights and, for a CLIP, its tokenizer."""
    try:
        config = read_json(folder / "config.json")
    except CheckpointError:
        return False
    names = {path.name for path in folder.iterdir() if path.exists()}  # a broken link of the cache is not there
    if "model.safetensors" not in names:
        if "model.safetensors.index.json" not in names:
            return False
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        if not set(index["weight_map"].values()) <= names:
            return False
    return config.get("model_type") != "clip" or "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names


def _listing(api: "HfApi", repo: str, revision: str) -> list[str]:
    info = api.model_info(repo, revision=revision, timeout=10)
    return [file.rfilename for file in info.siblings or []]


def _has_weights(files: list[str]) -> bool:
    return "model.safetensors" in files or "model.safetensors.index.json" in files


def _conversion(api: "HfApi", repo: str, files: list[str]) -> str:
    """The reference of the hub's own conversion of a repo's pickles to safetensors."""
    for discussion in api.get_repo_discussions(repo, discussion_type="pull_request"):
        if (discussion.author, discussion.title) == (_CONVERTER, _CONVERSION):
            reference = f"refs/pr/{discussion.num}"
            if _has_weights(_listing(api, repo, reference)):
                return reference
    pickles = [name for name in files if name.endswith(PICKLE_SUFFIXES)]
    if not pickles:
        raise CheckpointError(f"{repo} has no weights that deop can read: no model.safetensors")
    raise CheckpointError(
        f"{repo} has only pickled weights ({', '.join(pickles)}), which deop never loads. "
        f"Convert them once:\n  hf download {repo} --local-dir {repo.split('/')[-1]}\n"
        f"  deop convert {repo.split('/')[-1]} FOLDER"
    )


def _explain(repo: str, revision: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        raise ModelNotFoundError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then `hf auth login`"
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise ModelNotFoundError(f"{repo} has no revision {revision!r}") from error
    if isinstance(error, errors.RepositoryNotFoundError):
        raise ModelNotFoundError(
            f"there is no model {repo} on the hub, or it is private: check the name, or `hf auth login`"
        ) from error
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    name = repo.split("/")[-1]
    raise HubUnreachableError(
        f"{repo} is not on this machine and the hub cannot be reached ({reason}). On a machine with a network:\n"
        f"  {download_command(repo, revision)}\n"
        f"Bring the folder {name} here and give its path instead of the name. Or load the model there once, with deop, "
        f"and bring what is then in its cache to\n"
        f"  {repo_cache(repo)}",
        reason,
    ) from error


def download_command(repo: str, revision: str) -> str:
    """The command that fetches what deop reads of a repo into a folder named after it."""
    pinned = "" if revision == "main" else f" --revision {revision}"
    includes = " ".join(f"--include '{pattern}'" for pattern in ("*.json", "merges.txt", "model*.safetensors"))
    return f"hf download {repo}{pinned} {includes} --local-dir {repo.split('/')[-1]}"
