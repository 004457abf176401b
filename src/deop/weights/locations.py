"""The folder of a model: a path, a hub repo, or a name of the zoo; downloaded if it is not on this machine."""

import difflib
import re
import shlex
from pathlib import Path

from deop.errors import CheckpointError, ModelNotFoundError
from deop.files import convert_command, existing_path
from deop.named_models import NANO, ZOO, HubWeights, ZooModel
from deop.weights.hub import HubUnreachableError, cached, download_command, fetch, repo_cache

_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def fetch_weights(weights: HubWeights) -> Path:
    """The folder of these weights, downloaded if necessary.

    Raises:
        ModelNotFoundError: not on this machine, and the hub does not answer or has no such repo.
        CheckpointError: a repo that has pickled weights only, or is incomplete.
    """
    return fetch(weights.repo, weights.revision)


def is_cached(weights: HubWeights) -> bool:
    """Whether these weights are in this machine's cache. No network is used."""
    return cached(weights.repo, weights.revision) is not None


def fetch_model(model: ZooModel, proposer: str | Path | None) -> None:
    """Download both parts of a model before either is loaded; if that fails, report everything that is missing.

    Args:
        model: the model.
        proposer: the caller's own choice, which replaces the model's proposer; None: none.

    Raises:
        ModelNotFoundError: the hub does not answer; the message says what to copy, and where to.
    """
    parts = {"--model": model.encoder} if proposer else {"--model": model.encoder, "--proposer": model.proposer}
    missing = {option: weights for option, weights in parts.items() if not is_cached(weights)}
    try:
        for weights in missing.values():
            fetch_weights(weights)
    except HubUnreachableError as error:
        megabytes = sum(weights.megabytes for weights in missing.values())
        commands = "\n".join(f"  {download_command(weights.repo, weights.revision)}" for weights in missing.values())
        # A folder has no default proposer, so the command must name the proposer even if it is cached.
        values = {
            option: weights.repo.split("/")[-1] if option in missing else str(weights)
            for option, weights in parts.items()
        }
        if "--model" not in missing:
            values["--model"] = model.name
        options = " ".join(f"{option} {shlex.quote(value)}" for option, value in values.items())
        caches = "\n".join(f"  {repo_cache(weights.repo)}" for weights in missing.values())
        raise ModelNotFoundError(
            f"{model.name} is not on this machine ({megabytes} MB to download) and the hub cannot be reached "
            f"({error.reason}). On a machine with a network, run\n{commands}\n"
            f"Copy the folders to this machine and give their paths (in Python: load(model, proposer=...)):\n"
            f"  {options}\n"
            f"Or load {model.name} there once with deop, and copy its folders in the hub's cache to\n{caches}"
        ) from error


def folder_of(proposer: str | Path | HubWeights) -> Path:
    """The folder of a proposer, which has no name of its own in the zoo.

    Raises:
        ModelNotFoundError, CheckpointError: as ``find_folder``.
    """
    return fetch_weights(proposer) if isinstance(proposer, HubWeights) else find_folder(str(proposer), zoo=False)


def check_layout(folder: Path) -> None:
    """Refuse a folder of open_clip, which has no config.json, and say how to convert it.

    Raises:
        CheckpointError: it is one.
    """
    if not (folder / "config.json").is_file() and (folder / "open_clip_config.json").is_file():
        raise CheckpointError(f"{folder} is a model of open_clip: convert it once: {convert_command(folder)}")


def find_folder(name: str, zoo: bool = True) -> Path:
    """The folder of a path or a hub repo.

    Args:
        name: a path, "org/name" or "org/name@revision".
        zoo: whether the caller also takes names of the zoo: "nano" is found, and messages suggest names.

    Raises:
        ModelNotFoundError: no such folder or name, or a repo that cannot be downloaded.
        CheckpointError: a file instead of a folder, or as ``fetch_weights``.
    """
    if zoo and name == "nano":
        return NANO
    if path := existing_path(name):
        if path.is_dir():
            return path
        raise CheckpointError(f"{name} is a file: give its folder, or convert it once: {convert_command(name)}")
    if _REPO.fullmatch(name) and not name.startswith("."):
        repo, _, revision = name.partition("@")
        return fetch(repo, revision or "main")
    if not zoo or "/" in name:
        raise ModelNotFoundError(
            f"there is no folder {name}, and it is not the name of a hub repo (org/name): check the path"
        )
    similar = difflib.get_close_matches(name.lower(), ("nano", *ZOO), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"the zoo has nano, {', '.join(ZOO)}."
    raise ModelNotFoundError(
        f"there is no model named {name!r}: {hint} A folder or a hub repo (org/name) works too; "
        "`deop models` lists the names."
    )
