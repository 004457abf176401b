"""Model folders from the Hugging Face hub: downloaded once, then used without a network."""

import errno
import json
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deop.dependencies import require
from deop.errors import CheckpointError, ModelNotFoundError, OutputError
from deop.files import (
    PICKLE_SUFFIXES,
    WEIGHT_INDEX,
    convert_command,
    parse_json,
    read_json,
    read_weight_index,
    replacing,
)
from deop.named_models import TOWERS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    WEIGHT_INDEX,
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    "words.txt",
    "README.md",
    # Written by ``deop export``. Not ``*.onnx``: the pattern would also match graphs of other programs in subfolders.
    *("encode.onnx", "regions.onnx", "text.onnx", "classify.onnx", "label.onnx"),
    *("encode.int8.onnx", "regions.int8.onnx"),
    *("weights.safetensors", "text.safetensors", "names.safetensors"),
)
"""The files of a repo that deop reads. Not ``*.safetensors``: many repos hold the same weights in two layouts."""

_TOKENIZERS: tuple[set[str], ...] = (
    {"tokenizer.json"},
    {"vocab.json", "merges.txt"},
    {"tokenizer.model"},
    {"spiece.model"},
    {"sentencepiece.bpe.model"},
)

_CONVERSION_AUTHOR, _CONVERSION_TITLE = "SFconvertbot", "Adding `safetensors` variant of this model"
_CONVERSIONS = "deop-conversions.json"
_UNWRITABLE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


class HubUnreachableError(ModelNotFoundError):
    """A repo is not on this machine, and the hub does not answer; ``reason`` says why."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class _Snapshot:
    """One commit of a repo: the content id of every file, by its name."""

    commit: str
    files: dict[str, str]

    @property
    def has_weights(self) -> bool:
        return any(name in self.files for name in ("model.safetensors", WEIGHT_INDEX, "weights.safetensors"))

    @property
    def pickles(self) -> list[str]:
        return [name for name in self.files if name.endswith(PICKLE_SUFFIXES)]


def fetch(repo: str, revision: str = "main") -> Path:
    """The folder of a hub repo: from this machine's cache if it is complete there, else downloaded with a progress bar.

    A revision is served by its own files only, with one exception. If it holds pickled weights and no safetensors, the
    pull request that the hub's conversion bot opened may stand in for it. It does so only if the pull request holds the
    very same pickled weights, configuration and tokenizer as the revision, compared by content id. The commit of the
    pull request is then recorded in the cache under this revision and its commit, so that ``cached`` finds it again;
    for other revisions it is never used.

    Args:
        repo: "org/name".
        revision: branch, tag or full commit id.

    Returns:
        A folder with ``config.json``, safetensors weights and, where the repo has them, tokenizer files.

    Raises:
        ModelNotFoundError: not a name of a repo; or not on this machine, and no network, no such repo or revision, or
            no access.
        CheckpointError: the revision has no weights in safetensors, or lacks a file that deop needs.
        OutputError: the cache cannot be written.
        MissingDependencyError: huggingface_hub is not installed.
    """
    require(f"downloading the model {repo} from the hub", "huggingface_hub")
    _check_name(repo)
    if folder := cached(repo, revision):
        return folder
    from huggingface_hub import HfApi, snapshot_download

    try:
        # One request without retries: without a network it fails at once, while snapshot_download retries for 20 s.
        api = HfApi()
        snapshot = _snapshot(api, repo, revision)
        conversion = None if snapshot.has_weights else _conversion(api, repo, revision, snapshot)
        folder = Path(
            snapshot_download(repo, revision=conversion.commit if conversion else revision, allow_patterns=list(FILES))
        )
    except CheckpointError:
        raise
    except Exception as error:  # huggingface_hub also raises errors of its HTTP library, which differs by version
        _explain(repo, revision, error)
    if not is_complete(folder):
        raise CheckpointError(
            f"{repo} at revision {revision} is not a model that deop can read: it lacks config.json, a part of its "
            "weights or its tokenizer"
        )
    if conversion:
        _record_conversion(repo, revision, snapshot.commit, conversion.commit)
    return folder


def cached(repo: str, revision: str = "main") -> Path | None:
    """The complete folder of a revision in the cache of this machine, or None. No network is used.

    Args:
        repo: "org/name".
        revision: branch, tag or full commit id. A conversion of its pickled weights counts only where ``fetch``
            recorded it for this very revision.
    """
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    for candidate in (revision, _recorded_conversion(repo, revision)):
        if candidate is not None:
            config = try_to_load_from_cache(repo, "config.json", revision=candidate)
            if isinstance(config, str) and is_complete(Path(config).parent):
                return Path(config).parent
    return None


def repo_cache(repo: str) -> Path:
    """The folder of a repo in the hub's cache, which need not exist. HF_HOME and HF_HUB_CACHE move the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def is_complete(folder: Path) -> bool:
    """Whether a folder has the files that deop needs: the config, all weights and, for an encoder, its tokenizer.

    An exported folder lists its files.
    """
    try:
        config = read_json(folder / "config.json")
        names = {path.name for path in folder.iterdir() if path.exists()}  # the cache may hold broken links
        exported = config.get("onnx")
        if isinstance(exported, dict) and isinstance(exported.get("files"), dict):  # checked when it is loaded
            return set(exported["files"]) <= names
        if "model.safetensors" not in names and not set(read_weight_index(folder / WEIGHT_INDEX).values()) <= names:
            return False
    except CheckpointError:
        return False
    return str(config.get("model_type")) not in TOWERS or any(tokenizer <= names for tokenizer in _TOKENIZERS)


def license_of(folder: Path) -> str:
    """The licence that the model card of a folder states: ``license`` in the front matter of README.md, or "unknown".

    Where the hub's own list of licences lacks it ("other"), its name is added.
    """
    from huggingface_hub import metadata_load

    try:
        card = metadata_load(folder / "README.md") if (folder / "README.md").is_file() else None
    except Exception:  # the YAML library raises errors of many kinds for a damaged card, which nothing else depends on
        card = None
    card = card if isinstance(card, dict) else {}
    stated, name = card.get("license"), card.get("license_name")
    if isinstance(stated, list):
        stated = ", ".join(map(str, stated))
    if not isinstance(stated, str) or not stated.strip():
        return "unknown"
    return f"{stated} ({name})" if isinstance(name, str) and name.strip() else stated


def download_command(repo: str, revision: str) -> str:
    """The shell command that downloads the files that deop reads into a folder named after the repo."""
    includes = ("*.json", "merges.txt", "words.txt", "model*.safetensors", "README.md")
    return _download(repo, revision, *(word for pattern in includes for word in ("--include", pattern)))


def _download(repo: str, revision: str, *options: str) -> str:
    pinned = [] if revision == "main" else ["--revision", revision]
    return shlex.join(["hf", "download", repo, *pinned, *options, "--local-dir", repo.split("/")[-1]])


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"there is no folder {repo}, and it is not the name of a hub repo (org/name): check the path"
        ) from error


def _snapshot(api: "HfApi", repo: str, revision: str) -> _Snapshot:
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=10)
    return _Snapshot(str(info.sha), {file.rfilename: file.blob_id or "" for file in info.siblings or []})


def _conversion(api: "HfApi", repo: str, revision: str, snapshot: _Snapshot) -> _Snapshot:
    """The conversion bot's pull request for exactly the files of a snapshot.

    Raises:
        CheckpointError: the bot opened none, or for other files.
    """
    if not snapshot.pickles:
        if "open_clip_config.json" in snapshot.files:
            commands = f"{_download(repo, revision)}\n  {convert_command(repo.split('/')[-1])}"
            raise CheckpointError(
                f"{repo} at revision {revision} is a model of open_clip. Convert it once:\n  {commands}"
            )
        raise CheckpointError(
            f"{repo} at revision {revision} has no weights that deop can read: it has no model.safetensors"
        )
    others = []
    for discussion in api.get_repo_discussions(repo, discussion_type="pull_request"):
        if (discussion.author, discussion.title) == (_CONVERSION_AUTHOR, _CONVERSION_TITLE):
            reference = f"refs/pr/{discussion.num}"
            candidate = _snapshot(api, repo, reference)
            if not candidate.has_weights:
                continue
            if _converts(candidate, snapshot):
                return candidate
            others.append(f"{repo}@{reference}")
    name = repo.split("/")[-1]
    hint = f"\nOr load the hub's conversion of other files of this repo: {' or '.join(others)}" if others else ""
    raise CheckpointError(
        f"{repo} at revision {revision} has only pickled weights ({', '.join(snapshot.pickles)}), which deop never "
        f"loads. Convert them once:\n  {_download(repo, revision)}\n  {convert_command(name)}{hint}"
    )


def _converts(candidate: _Snapshot, snapshot: _Snapshot) -> bool:
    """Whether a conversion holds the same pickled weights as a snapshot, and the same other files that deop reads."""
    names = {*snapshot.pickles, *(name for name in FILES if name in snapshot.files)} - {"README.md"}
    return all(snapshot.files[name] and candidate.files.get(name) == snapshot.files[name] for name in names)


def _recorded_conversion(repo: str, revision: str) -> str | None:
    """The commit of the conversion that ``fetch`` recorded for a revision, while the revision is the same commit."""
    record = _records(repo).get(revision)
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("commit", "conversion")):
        return None
    try:  # another program may have seen that the branch has moved since
        current = (repo_cache(repo) / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        current = record["commit"]
    return record["conversion"] if current == record["commit"] else None


def _records(repo: str) -> dict[str, Any]:
    try:
        records = parse_json(repo_cache(repo) / _CONVERSIONS)
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}


def _record_conversion(repo: str, revision: str, commit: str, conversion: str) -> None:
    record = {"commit": commit, "conversion": conversion}
    with replacing(repo_cache(repo) / _CONVERSIONS) as file:
        file.write((json.dumps(_records(repo) | {revision: record, commit: record}, indent=1) + "\n").encode())


def publish(folder: Path, repo: str, *, private: bool | None = None, message: str) -> str:
    """Upload a model folder to the hub; see ``DeOP.push_to_hub``."""
    from huggingface_hub import HfApi

    api = HfApi()
    repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message))


def _explain(repo: str, revision: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        raise OutputError(
            f"cannot write {repo} into the hub's cache, {repo_cache(repo)}: {error.strerror}. Free some space or set "
            "HF_HUB_CACHE to another folder, and repeat the command: files that are complete are kept"
        ) from error
    if isinstance(error, errors.GatedRepoError):
        raise ModelNotFoundError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then run `hf auth login`"
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise ModelNotFoundError(
            f"{repo} has no revision {revision!r}: choose a branch, tag or commit of it"
        ) from error
    if isinstance(error, errors.RepositoryNotFoundError):
        raise ModelNotFoundError(
            f"there is no folder {repo}, and no model {repo} on the hub, or it is private: check the name, or run "
            "`hf auth login`"
        ) from error
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    name = repo.split("/")[-1]
    raise HubUnreachableError(
        f"{repo} is not on this machine and the hub cannot be reached ({reason}). On a machine with a network, run\n"
        f"  {download_command(repo, revision)}\n"
        f"Copy the folder {name} to this machine and give its path instead of the name. Or load the model there once "
        f"with deop, and copy its folder in the hub's cache to\n"
        f"  {repo_cache(repo)}",
        reason,
    ) from error
