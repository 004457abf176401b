"""``load``: a model from its name, a folder or a hub repo. The named models are in ``named_models``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from deop.arguments import check_arguments
from deop.dependencies import require
from deop.errors import CheckpointError, SettingError
from deop.files import read_json
from deop.named_models import CLIP, NANO, USAGES, ZOO, HubWeights, ZooModel
from deop.networks.devices import choose_device, choose_dtype
from deop.networks.threads import set_threads
from deop.runtime.engine import GIVEN, check_engine, choose_engine, has_torch
from deop.runtime.providers import PROVIDERS, REMEDIES, is_installed
from deop.weights.hub import license_of
from deop.weights.locations import check_layout, fetch_model, fetch_weights, find_folder, folder_of, is_cached

if TYPE_CHECKING:
    import torch

    from deop.model import DeOP
    from deop.runtime.model import Model
    from deop.settings import Card

__all__ = ["GIVEN", "NANO", "ZOO", "HubWeights", "ZooModel", "choose_device", "choose_dtype", "load", "load_proposer"]


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


@check_arguments
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
        folder = find_folder(str(name))
        check_layout(folder)
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
        fetch_model(listed, proposer)
    folder = fetch_weights(listed.encoder) if listed else find_folder(str(name))
    check_layout(folder)
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
    elif _is_tower(config):
        default = listed.proposer if listed else GIVEN
        model = _training_free(folder, str(config["model_type"]), load_proposer(proposer or default), str(name), listed)
        model.card = _with_proposer(model.card, proposer or default)
    else:
        choose_engine(str(name), folder, config, "torch")  # explains folders of ONNX graphs
        kind = config.get("model_type") or config.get("format") or "unknown"
        raise CheckpointError(f"{name} is a model of kind {kind!r}: deop loads its own format and {_towers()}")
    if proxy is not None:
        from deop.encoders.feature_network import FeatureNetwork

        model.set_proxy(FeatureNetwork.from_folder(find_folder(str(proxy), zoo=False)))
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

    return proposer_from_folder(folder_of(choice), choice)


def on_this_machine(model: ZooModel) -> tuple[bool, bool]:
    """Whether the encoder and the proposer of a model are in this machine's cache. No network is used."""
    return is_cached(model.encoder), is_cached(model.proposer)


def _with_proposer(card: "Card", proposer: str | Path | HubWeights) -> "Card":
    """The card of a model that takes masks from another model: licence and source of both."""
    if proposer == GIVEN:
        return card
    license = proposer.license if isinstance(proposer, HubWeights) else license_of(folder_of(proposer))
    return replace(card, license=f"{card.license}; masks: {license}", source=f"{card.source}; masks: {proposer}")


def _training_free(folder: Path, kind: str, proposer: Any, name: str, listed: ZooModel | None) -> "DeOP":
    """A folder of encoders and a proposer as a model with no learned parts besides (docs/method.md §12)."""
    from deop.encoders.from_folder import scoring_from_folder, text_from_folder, vision_from_folder
    from deop.images.preprocessing import Resize
    from deop.model import DeOP
    from deop.networks.loading import building_model
    from deop.settings import Card, Settings

    if listed:
        usage, card = listed.usage, Card(name=name, license=listed.encoder.license, source=str(listed.encoder))
    else:
        usage, card = USAGES.get(kind, CLIP), Card(name=name, source=name, license=license_of(folder))
    with building_model(folder):
        encoder, text = vision_from_folder(folder), text_from_folder(folder)
        settings = Settings(
            resize=Resize(short_side=usage.short_side),
            severance=usage.severance,
            anchors=usage.anchors,
            windows=usage.windows,
            **scoring_from_folder(folder),
        )
    return DeOP(encoder, text, proposer, settings=settings, card=card)


def _is_tower(config: dict[str, Any]) -> bool:
    from deop.encoders.from_folder import TOWERS

    return str(config.get("model_type")) in TOWERS


def _towers() -> str:
    from deop.encoders.from_folder import TOWERS

    return "transformers' " + ", ".join(repr(kind) for kind in TOWERS)
