"""The zoo: training-free models by name, each a CLIP and a mask proposer, and ``load`` for these and any other.

Nothing here was trained by us: a CLIP names the regions, its last block severed so that they do not leak into each
other (METHOD section 12), and a segmentation model, whose own classes are ignored, proposes them.
"""

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deop.errors import CheckpointError, ModelNotFoundError, ProposalError, SettingError
from deop.files import read_json
from deop.weights.hub import HubUnreachableError, cached, download_command, fetch, repo_cache

if TYPE_CHECKING:
    import torch

    from deop.model import DeOP
    from deop.settings import Card

GIVEN = "given"
"""The proposer's name for masks that the caller hands over with each photo."""

NANO = Path(__file__).parent / "assets" / "nano"
"""The small model inside the package, in deop's own format."""

_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Weights:
    """Weights on the hub.

    Attributes:
        repo: "org/name".
        revision: commit, so that a name means the same weights for ever; "main" where none could be verified.
        license: SPDX identifier of the weights' licence; "other" where the hub says no more than that.
        megabytes: size of what is fetched.
    """

    repo: str
    revision: str
    license: str
    megabytes: int

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Entry:
    """A named combination.

    Attributes:
        name: what people type.
        purpose: what it is good for, in a line.
        clip: the encoder, in transformers' CLIP layout; its pixel statistics are read from its preprocessor's settings.
        proposer: where masks come from unless the caller chooses otherwise.
        short_side: pixels that a photo's shorter side is resized to, for encoder and proposer alike.
        severance: kind of severance in the last block.
        residual: weight of the residual stream in that block.
    """

    name: str
    purpose: str
    clip: Weights
    proposer: Weights
    short_side: int = 512
    severance: str = "self"
    residual: float = 0.2

    @property
    def megabytes(self) -> int:
        """Size of all that is fetched."""
        return self.clip.megabytes + self.proposer.megabytes


# The hub's licence field of both says "other"; the code that made them is MIT.
_MASKS_TINY = Weights(
    "facebook/mask2former-swin-tiny-coco-panoptic", "df6b1142ff50c3276559d9d78f35f6a579c75a77", "other", 190
)
_MASKS_SMALL = Weights(
    "facebook/mask2former-swin-small-coco-panoptic", "823b60a9dddf1829580505654f6a00b306a65381", "other", 276
)

ZOO = {
    entry.name: entry
    for entry in (
        Entry(
            "clip-b32",
            "the fastest: large patches, coarse edges inside masks",
            # The hub's conversion to safetensors; the repo's main branch holds pickles only.
            Weights("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef", "MIT", 605),
            _MASKS_TINY,
        ),
        Entry(
            "clip-b16",
            "the paper's encoder: the one to begin with",
            Weights("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", "MIT", 599),
            _MASKS_TINY,
        ),
        Entry(
            "clip-l14",
            "the most exact of OpenAI's, and the slowest",
            Weights("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", "MIT", 1711),
            _MASKS_SMALL,
        ),
        Entry(
            "laion-b32",
            "as clip-b32, trained on open data (LAION-2B)",
            Weights("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "1a25a446712ba5ee05982a381eed697ef9b435cf", "MIT", 609),
            _MASKS_TINY,
        ),
        Entry(
            "metaclip-b16",
            "as clip-b16, trained on curated data; not for commercial use",
            Weights("facebook/metaclip-b16-fullcc2.5b", "main", "CC-BY-NC-4.0", 602),
            _MASKS_TINY,
        ),
    )
}


def load(
    name: str | Path,
    *,
    proposer: str | Path | None = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
) -> "DeOP":
    """Load a model; what is not on this machine is fetched once, with a progress bar.

    Args:
        name: "nano", the small model inside the package; a name of the zoo (``deop models`` lists them); a folder, in
            deop's own format or in transformers' CLIP layout; or a hub repo in either layout, "org/name" or
            "org/name@revision".
        proposer: where masks come from. None: the entry's own, the one in a folder of deop's format, or else "given".
            "given": each call of ``segment`` hands over its masks. Or a folder or a hub repo of transformers'
            MaskFormer, Mask2Former or SAM. Anchors tied to the slots of a model's own proposer leave another's masks
            to pooling.
        device: "cpu", "cuda", "cuda:1", "mps"...; None: a GPU where there is one.
        dtype: "float32" (None), "bfloat16" or "float16", or torch's own; or "int8", on a CPU: the encoder's linear
            layers multiply in int8, the rest stays float32, and the model cannot be saved.

    Returns:
        The model, ready to ``segment``.

    Raises:
        ModelNotFoundError: no such name, or its weights are neither on this machine nor to be fetched; the message
            says what to bring and where to put it.
        CheckpointError: a folder or repo that holds no such model, is damaged, or has pickled weights only.
        ProposalError: a proposer that is no mask model.
        SettingError: an unknown device or dtype.
    """
    place = choose_device(device)  # before anything large is fetched
    int8 = str(dtype).removeprefix("torch.") == "int8"
    precision = choose_dtype(None if int8 else dtype)
    if int8 and place.type != "cpu":
        raise SettingError(f"dtype 'int8' is for CPUs, and the device is {place}: add device=\"cpu\" (--device cpu)")
    entry = ZOO.get(str(name))
    if entry:
        _fetch_all(entry, proposer)
    folder = _fetch(entry.clip) if entry else _find(str(name))
    config = read_json(folder / "config.json")
    if config.get("format") == "deop":
        from deop.model import DeOP

        model = DeOP.from_pretrained(folder)
        if proposer is not None:
            model.set_proposer(load_proposer(proposer))
            if model.anchors is not None and model.anchors.config.query == "slot":
                # Another proposer's slots mean something else, even where there are no more of them.
                model.settings = replace(model.settings, anchors="pool")
            model.card = _with_masks_of(model.card, proposer)
    elif config.get("model_type") == "clip":
        default = entry.proposer if entry else GIVEN
        model = _training_free(folder, load_proposer(proposer or default), str(name), entry)
        model.card = _with_masks_of(model.card, proposer or default)
    else:
        kind = config.get("model_type") or config.get("format") or "unknown"
        raise CheckpointError(f"{name} is a model of kind {kind!r}: deop takes its own format and transformers' 'clip'")
    model = model.to(device=place, dtype=precision).eval()
    if int8:
        from deop.encoders.int8 import to_int8

        to_int8(model.encoder)  # type: ignore[arg-type]
    return model


def load_proposer(choice: "str | Path | Weights") -> Any:
    """The proposer that ``load`` describes, or None for masks that the caller gives.

    Raises:
        ModelNotFoundError, CheckpointError: as ``load``.
        ProposalError: a model that proposes no masks.
    """
    if choice == GIVEN:
        return None
    folder = _fetch(choice) if isinstance(choice, Weights) else _find(str(choice), zoo=False)
    kind = read_json(folder / "config.json").get("model_type")
    from deop.proposals import sam, transformers_networks

    if kind in transformers_networks.CLASSES:
        return transformers_networks.TransformersProposer.from_folder(folder)
    if kind in sam.CLASSES:
        return sam.SamProposer.from_folder(folder)
    known = ", ".join((*transformers_networks.CLASSES, *sam.CLASSES))
    raise ProposalError(f"{choice} is a model of kind {kind!r}, which proposes no masks: deop takes {known}")


def _with_masks_of(card: "Card", proposer: str | Path | Weights) -> "Card":
    """The card of a model whose masks come from another: the licence and source of both."""
    if proposer == GIVEN:
        return card
    license = proposer.license if isinstance(proposer, Weights) else "not known"
    return replace(card, license=f"{card.license}; masks: {license}", source=f"{card.source}; masks: {proposer}")


def on_this_machine(entry: Entry) -> tuple[bool, bool]:
    """Whether an entry's encoder and its proposer are in this machine's cache; no network is used."""
    return _is_here(entry.clip), _is_here(entry.proposer)


def _is_here(weights: Weights) -> bool:
    return cached(weights.repo, weights.revision) is not None


def _training_free(folder: Path, proposer: Any, name: str, entry: Entry | None) -> "DeOP":
    """A model of a CLIP folder and a proposer: mask pooling, nothing learned beside them (METHOD section 12)."""
    from deop.encoders.clip import CLIPVision
    from deop.encoders.clip_text import CLIPText
    from deop.encoders.severance import Severance
    from deop.images.preprocessing import Resize
    from deop.model import Card, DeOP, Settings

    settings, card = Settings(), Card(name=name, source=name)
    if entry:
        severance = Severance(entry.severance, residual=entry.residual)
        settings = Settings(resize=Resize(short_side=entry.short_side), severance=severance)
        card = Card(name=name, license=entry.clip.license, source=str(entry.clip))
    return DeOP(CLIPVision.from_folder(folder), CLIPText.from_folder(folder), proposer, settings=settings, card=card)


def _fetch(weights: Weights) -> Path:
    return fetch(weights.repo, weights.revision)


def _fetch_all(entry: Entry, proposer: str | Path | None) -> None:
    """Bring all of an entry here before any of it is loaded; where that fails, say at once all that is missing."""
    parts = {"--model": entry.clip} if proposer else {"--model": entry.clip, "--proposer": entry.proposer}
    missing = {option: weights for option, weights in parts.items() if not _is_here(weights)}
    try:
        for weights in missing.values():
            _fetch(weights)
    except HubUnreachableError as error:
        megabytes = sum(weights.megabytes for weights in missing.values())
        commands = "\n".join(f"  {download_command(w.repo, w.revision)}" for w in missing.values())
        # A folder has no default proposer: where the entry's is here already, it must be named.
        places = {option: w.repo.split("/")[-1] if option in missing else str(w) for option, w in parts.items()}
        if "--model" not in missing:
            places["--model"] = entry.name
        options = " ".join(f"{option} {place}" for option, place in places.items())
        caches = "\n".join(f"  {repo_cache(weights.repo)}" for weights in missing.values())
        raise ModelNotFoundError(
            f"{entry.name} is not on this machine ({megabytes} MB to fetch) and the hub cannot be reached "
            f"({error.reason}). On a machine with a network:\n{commands}\n"
            f"Bring what that makes here, and give the paths (in Python: load(model, proposer=...)):\n  {options}\n"
            f"Or load {entry.name} there once, with deop, and bring what is then in its cache to\n{caches}"
        ) from error


def _find(name: str, zoo: bool = True) -> Path:
    """The folder of a path or a hub repo; ``zoo``: names of the zoo would have been taken too."""
    if zoo and name == "nano":
        return NANO
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(
            f"{name} is a file: give the folder it is in, or convert it once: deop convert {name} FOLDER"
        )
    if _REPO.fullmatch(name) and not name.startswith("."):
        repo, _, revision = name.partition("@")
        return fetch(repo, revision or "main")
    if not zoo or "/" in name:
        raise ModelNotFoundError(f"there is no folder {name}, and it is no hub repo (org/name)")
    near = difflib.get_close_matches(name.lower(), ("nano", *ZOO), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the zoo has nano, {', '.join(ZOO)}."
    raise ModelNotFoundError(
        f"there is no model named {name!r}: {hint} A folder or a hub repo (org/name) can be given too; "
        "`deop models` lists the names."
    )


def choose_device(choice: "str | torch.device | None") -> "torch.device":
    """The device that is asked for; None: a GPU if any.

    Raises:
        SettingError: one that cannot be used here.
    """
    import torch

    if choice is None:
        for kind in ("cuda", "mps"):
            if getattr(torch, kind).is_available():
                return torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(choice)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"device {str(choice)!r} cannot be used here: {reason}") from error
    return device


def choose_dtype(choice: "str | torch.dtype | None") -> "torch.dtype":
    """The precision that is asked for; None: float32.

    Raises:
        SettingError: one that is not known.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    dtype = known.get("float32" if choice is None else str(choice).removeprefix("torch."))
    if dtype is None:
        raise SettingError(
            f"unknown dtype {str(choice)!r}: choose one of {', '.join(known)}; int8 is for models on a CPU"
        )
    return dtype
