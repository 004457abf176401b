"""``load``, and the zoo: named models that need no training, each a CLIP and a mask proposer from the hub.

The CLIP classifies the regions; its last block is severed, so that regions do not mix (docs/method.md §12). A published
segmentation model proposes them; its classes are ignored.
"""

import difflib
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from deop.dependencies import require
from deop.errors import CheckpointError, ModelNotFoundError, SettingError
from deop.files import convert_command, existing_path, read_json
from deop.networks.devices import choose_device, choose_dtype
from deop.networks.threads import set_threads
from deop.runtime.engine import GIVEN, check_engine, choose_engine, has_torch
from deop.runtime.providers import PROVIDERS, REMEDIES, is_installed
from deop.severance import TRAINING_FREE, Severance
from deop.weights.hub import HubUnreachableError, cached, download_command, fetch, license_of, repo_cache

if TYPE_CHECKING:
    import torch

    from deop.model import DeOP
    from deop.runtime.model import Model
    from deop.settings import Card

__all__ = ["GIVEN", "NANO", "ZOO", "HubWeights", "ZooModel", "choose_device", "choose_dtype", "load", "load_proposer"]

NANO = Path(__file__).parent / "assets" / "nano"
"""Folder of the small model that is part of the package, in deop's own format."""

_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class HubWeights:
    """Weights on the hub.

    Attributes:
        repo: "org/name".
        revision: the commit, so that a name always means the same weights; "main" where no commit could be verified.
        license: SPDX identifier of the licence of the weights, or "other" as on the hub.
        megabytes: size of the download.
    """

    repo: str
    revision: str
    license: str
    megabytes: int

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo.

    Attributes:
        name: what ``load`` and ``--model`` take.
        purpose: what the model is good for, in one line.
        clip: the encoder, in transformers' CLIP layout; channel statistics come from its preprocessor_config.json.
        proposer: the source of masks, unless the caller chooses another.
        short_side: length in pixels to which the shorter side of a photo is resized, for encoder and proposer.
        severance: how the last block is severed.
    """

    name: str
    purpose: str
    clip: HubWeights
    proposer: HubWeights
    short_side: int = 512
    severance: Severance = TRAINING_FREE

    @property
    def megabytes(self) -> int:
        """Size of both downloads."""
        return self.clip.megabytes + self.proposer.megabytes


# The hub lists the licence of both as "other". The authors' MODEL_ZOO.md puts all its models under CC BY-NC 4.0; only
# their code is under MIT.
_MASKS_TINY = HubWeights(
    "facebook/mask2former-swin-tiny-coco-panoptic", "df6b1142ff50c3276559d9d78f35f6a579c75a77", "CC-BY-NC-4.0", 190
)
_MASKS_SMALL = HubWeights(
    "facebook/mask2former-swin-small-coco-panoptic", "823b60a9dddf1829580505654f6a00b306a65381", "CC-BY-NC-4.0", 276
)

ZOO = {
    model.name: model
    for model in (
        ZooModel(
            "clip-b32",
            "the fastest: large patches, coarse edges inside masks",
            # The commit of the hub's conversion to safetensors; the main branch has pickled weights only.
            HubWeights("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef", "MIT", 605),
            _MASKS_TINY,
        ),
        ZooModel(
            "clip-b16",
            "the paper's encoder; a good first choice",
            HubWeights("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", "MIT", 599),
            _MASKS_TINY,
        ),
        ZooModel(
            "clip-l14",
            "the most accurate of OpenAI's, and the slowest",
            HubWeights("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "MIT", 1711),
            _MASKS_SMALL,
        ),
        ZooModel(
            "laion-b32",
            "as clip-b32, trained on open data (LAION-2B)",
            HubWeights("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", "MIT", 609),
            _MASKS_TINY,
        ),
        ZooModel(
            "metaclip-b16",
            "as clip-b16, trained on curated data; not for commercial use",
            HubWeights("facebook/metaclip-b16-fullcc2.5b", "main", "CC-BY-NC-4.0", 602),
            _MASKS_TINY,
        ),
    )
}


@overload
def load(
    name: str | Path,
    *,
    engine: Literal["torch"],
    proposer: str | Path | None = None,
    proxy: str | Path | None = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    threads: int | None = None,
) -> "DeOP": ...


@overload
def load(
    name: str | Path,
    *,
    engine: str | None = None,
    proposer: str | Path | None = None,
    proxy: str | Path | None = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    threads: int | None = None,
) -> "DeOP | Model": ...


def load(
    name: str | Path,
    *,
    engine: str | None = None,
    proposer: str | Path | None = None,
    proxy: str | Path | None = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    threads: int | None = None,
) -> "DeOP | Model":
    """Load a model. Weights that are not on this machine are downloaded once, with a progress bar.

    Args:
        name: "nano", the small model that is part of the package; a name of the zoo (``deop models`` lists them); a
            folder, in deop's own format, in transformers' CLIP layout, or written by ``deop export``; or a hub repo in
            one of these layouts, "org/name" or "org/name@revision".
        engine: "onnx" (ONNX Runtime) or "torch". None: ONNX Runtime if the model has ONNX graphs, as the small model
            and exported folders do, and no other argument needs torch; else torch. The results are the same; another
            severance, other anchors, two streams and training need torch.
        proposer: the source of masks. "given": each call of ``segment`` passes masks. A folder or a hub repo with
            transformers' MaskFormer, Mask2Former or SAM, which needs torch. None: the proposer of the zoo or of the
            folder, else "given". If the model's anchors are tied to the query slots of its own proposer, mask pooling
            replaces them.
        proxy: a second network whose features weigh attention, for severances such as "proxyclip": a folder or a hub
            repo with transformers' DINO (ViT), DINOv2 or DINOv3. Needs torch. None: none.
        device: for torch "cpu", "cuda", "cuda:1", "mps", ...; for ONNX Runtime "cpu", "cuda", "cuda:1", "webgpu",
            "coreml" or "directml". None or "auto": a GPU that the engine can use, else the CPU.
        dtype: "float32" (also None), "bfloat16" or "float16", or the dtype of torch. A CPU without instructions for
            half precision computes in float32 instead, with a warning. "int8", on a CPU only, quantises the linear
            layers of the encoder; everything else stays float32, and the model cannot be saved. ONNX Runtime takes the
            precisions that the folder has graphs of.
        threads: threads of the CPU that compute; None: one per core. With torch it applies to the whole process.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelNotFoundError: no such name, or weights that are not on this machine and cannot be downloaded; the message
            says what to copy, and where to.
        CheckpointError: the folder or repo holds another kind of model, is damaged, or has pickled weights only.
        ProposalError: ``proposer`` is not a mask model.
        SettingError: an unknown engine, device or dtype, or one that the engine does not have.
        MissingDependencyError: torch, or the execution provider of a device, is needed and not installed.
    """
    check_engine(engine)
    listed = ZOO.get(str(name))
    place, precision = _text(device), _text(dtype)
    if engine != "torch" and (listed is None or engine == "onnx"):
        if listed:
            raise SettingError(
                f"{name} has no ONNX graphs: export it once with `deop export {name} FOLDER`, and load that folder"
            )
        _check_device(place)
        folder = _find(str(name))
        _check_layout(folder)
        config = read_json(folder / "config.json")
        chosen = choose_engine(
            str(name), folder, config, engine, proposer=proposer, proxy=proxy, device=place, dtype=precision
        )
        if chosen == "onnx":
            from deop.runtime.model import Model

            given = proposer == GIVEN
            return Model.from_folder(folder, precision=precision, device=place, threads=threads, given_masks=given)
    require(f"the model {name}" if engine is None else "the torch engine", "torch")
    set_threads(threads)
    return _load_with_torch(name, listed, proposer, proxy, place, dtype)


def _load_with_torch(
    name: str | Path,
    listed: "ZooModel | None",
    proposer: str | Path | None,
    proxy: str | Path | None,
    device: str | None,
    dtype: "str | torch.dtype | None",
) -> "DeOP":
    """As ``load``."""
    place = choose_device(device)  # first, since downloads are large
    int8 = _text(dtype) == "int8"
    precision = choose_dtype(None if int8 else dtype, place)
    if int8 and place.type != "cpu":
        raise SettingError(f"dtype 'int8' needs a CPU, and the device is {place}: add device=\"cpu\" (--device cpu)")
    if listed:
        _fetch_all(listed, proposer)
    folder = _fetch(listed.clip) if listed else _find(str(name))
    _check_layout(folder)
    config = read_json(folder / "config.json")
    if config.get("format") == "deop":
        from deop.model import DeOP

        model = DeOP.from_pretrained(folder)
        if proposer is not None:
            model.set_proposer(load_proposer(proposer))
            if model.anchors is not None and model.anchors.config.query == "slot":
                # The slots of another proposer mean something else, even if their number is the same.
                model.settings = replace(model.settings, anchors="pool")
            model.card = _with_proposer(model.card, proposer)
    elif config.get("model_type") == "clip":
        default = listed.proposer if listed else GIVEN
        model = _training_free(folder, load_proposer(proposer or default), str(name), listed)
        model.card = _with_proposer(model.card, proposer or default)
    else:
        choose_engine(str(name), folder, config, "torch")  # explains folders of ONNX graphs
        kind = config.get("model_type") or config.get("format") or "unknown"
        raise CheckpointError(f"{name} is a model of kind {kind!r}: deop loads its own format and transformers' 'clip'")
    if proxy is not None:
        from deop.encoders.feature_network import FeatureNetwork

        model.set_proxy(FeatureNetwork.from_folder(_find(str(proxy), zoo=False)))
    model = model.to(device=place, dtype=precision).eval()
    if int8:
        from deop.encoders.int8 import to_int8

        to_int8(model.encoder)
    return model


def _check_device(device: str | None) -> None:
    """Refuse a device of torch that this machine does not have, before anything is downloaded.

    Raises:
        SettingError, MissingDependencyError: naming it.
    """
    if device is None or device == "auto":
        return
    kind = device.partition(":")[0]
    if kind in PROVIDERS and (kind != "cuda" or is_installed(kind) or not has_torch()):
        return  # checked with the model
    require(f"device {device!r}", "torch")
    try:
        choose_device(device)
    except SettingError as error:
        if kind in PROVIDERS:
            raise SettingError(f"{error}. For models with ONNX graphs: {REMEDIES[kind]}") from error
        raise


def _text(value: object) -> str | None:
    """A device or dtype as text, without the prefix of torch's dtypes; None for None."""
    return None if value is None else str(value).removeprefix("torch.")


def load_proposer(choice: "str | Path | HubWeights") -> Any:
    """Load the mask proposer that ``load`` describes; None for "given".

    Raises:
        ModelNotFoundError, CheckpointError: as ``load``.
        ProposalError: not a mask model.
    """
    if choice == GIVEN:
        return None
    from deop.proposals.from_folder import proposer_from_folder

    return proposer_from_folder(_folder_of(choice), choice)


def on_this_machine(model: ZooModel) -> tuple[bool, bool]:
    """Whether the encoder and the proposer of a model are in this machine's cache. No network is used."""
    return _is_cached(model.clip), _is_cached(model.proposer)


def _with_proposer(card: "Card", proposer: str | Path | HubWeights) -> "Card":
    """The card of a model that takes masks from another model: licence and source of both."""
    if proposer == GIVEN:
        return card
    license = proposer.license if isinstance(proposer, HubWeights) else license_of(_folder_of(proposer))
    return replace(card, license=f"{card.license}; masks: {license}", source=f"{card.source}; masks: {proposer}")


def _training_free(folder: Path, proposer: Any, name: str, listed: ZooModel | None) -> "DeOP":
    """A CLIP folder and a proposer as a model with mask pooling and no learned parts besides (docs/method.md §12)."""
    from deop.encoders.clip import CLIPVision
    from deop.encoders.clip_text import CLIPText
    from deop.images.preprocessing import Resize
    from deop.model import DeOP
    from deop.networks.loading import building_model
    from deop.settings import Card, Settings

    settings, card = Settings(), Card(name=name, source=name, license=license_of(folder))
    if listed:
        settings = Settings(resize=Resize(short_side=listed.short_side), severance=listed.severance)
        card = Card(name=name, license=listed.clip.license, source=str(listed.clip))
    with building_model(folder):
        encoder, text = CLIPVision.from_folder(folder), CLIPText.from_folder(folder)
    return DeOP(encoder, text, proposer, settings=settings, card=card)


def _fetch(weights: HubWeights) -> Path:
    return fetch(weights.repo, weights.revision)


def _is_cached(weights: HubWeights) -> bool:
    return cached(weights.repo, weights.revision) is not None


def _fetch_all(model: ZooModel, proposer: str | Path | None) -> None:
    """Download both parts of a model before either is loaded; if that fails, report everything that is missing."""
    parts = {"--model": model.clip} if proposer else {"--model": model.clip, "--proposer": model.proposer}
    missing = {option: weights for option, weights in parts.items() if not _is_cached(weights)}
    try:
        for weights in missing.values():
            _fetch(weights)
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


def _folder_of(proposer: "str | Path | HubWeights") -> Path:
    return _fetch(proposer) if isinstance(proposer, HubWeights) else _find(str(proposer), zoo=False)


def _check_layout(folder: Path) -> None:
    """Explain how to use a folder of open_clip, which has no config.json."""
    if not (folder / "config.json").is_file() and (folder / "open_clip_config.json").is_file():
        raise CheckpointError(f"{folder} is a model of open_clip: convert it once: {convert_command(folder)}")


def _find(name: str, zoo: bool = True) -> Path:
    """The folder of a path or a hub repo. ``zoo``: whether the caller also takes names of the zoo."""
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
