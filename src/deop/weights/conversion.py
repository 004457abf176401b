"""Converting published checkpoints to model folders with safetensors, completely or not at all."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_keys import text_from_openai, vision_from_openai
from deop.encoders.clip_text import ACTIVATIONS, CLIPText
from deop.encoders.from_folder import text_from_folder, vision_from_folder
from deop.encoders.severance import Severance
from deop.encoders.text_tower import read_tokenizer
from deop.errors import CheckpointError, DeopError, OutputError, SettingError
from deop.files import check_writable, existing_folder, existing_path, read_json, writing_folder
from deop.images.preprocessing import CLIP, IMAGENET, Resize
from deop.named_models import TOWERS
from deop.networks.loading import building_model, list_some, load_strictly
from deop.proposals.maskformer import MaskFormer, config_of_original, from_original_state
from deop.regions.anchors import AnchorDecoder
from deop.settings import Card, Settings
from deop.weights import open_clip
from deop.weights.checkpoints import checkpoint_in, read_checkpoint, whole_checkpoint, without_prefix
from deop.weights.format import ModelParts, save_model_folder
from deop.weights.hub import license_of

TOKENIZER = "openai/clip-vit-base-patch16"
"""Hub repo of the default tokenizer, which all of OpenAI's CLIPs share."""

_CLIP, _PROMPT = "clip_adapter.clip_model.", "clip_adapter.prompt_learner."
_NO_OBJECT, _QUERIES = "clip_adapter.non_object_embedding", "query_embedding.weight"
# Saved with the weights but not used: weights of the loss, and the pixel statistics of stage 2, which are CLIP's.
_UNUSED = ("criterion.empty_weight", "clip_adapter.pixel_mean", "clip_adapter.pixel_std")
# What training programs call the CLIP that they train.
_PREFIXES = ("model.", "clip.", "clip_model.", "ema_model.", "module.", "_orig_mod.")


class ConversionWarning(UserWarning):
    """The checkpoint was converted, but a part that it needs is missing."""


def convert(
    checkpoint: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    activation: str | None = None,
    license: str | None = None,
) -> Path:
    """Convert a published checkpoint. Its keys tell which of these it is:

    * a checkpoint of DeOP's authors, of stage 1 (prompt), 2 (proposals) or 3 (DeOP): becomes a model in deop's own
      format;
    * a state dict of CLIP in OpenAI's layout, which open_clip uses too: becomes a model without proposer, in deop's own
      format. ``open_clip_config.json`` beside it says what the weights do not contain (``weights.open_clip``);
    * the pickled weights of a hub folder, in one file or in several: becomes the same folder with safetensors.

    Args:
        checkpoint: file or folder.
        out: folder to write; must not contain a model.
        tokenizer: folder or hub repo with CLIP's tokenizer, which is not part of a checkpoint. None: the one beside the
            checkpoint, or else OpenAI's, from this machine's cache or the hub; without either, the model is written
            without a tokenizer, with a warning.
        config: open_clip's configuration of the model; None: ``open_clip_config.json`` beside the checkpoint, if it is
            there.
        activation: "quick_gelu" or "gelu", for a CLIP in OpenAI's layout without a configuration.
        license: licence of the weights; None: that of the README.md beside the checkpoint, or else "unknown".

    Returns:
        ``out``.

    Raises:
        CheckpointError: a file of another kind or without what is needed to run it, missing or unknown keys, by name.
        OutputError: ``out`` contains a model already, or cannot be written.
        SettingError: an unknown activation, or options that the checkpoint does not need.
    """
    source, folder = existing_path(checkpoint), Path(out)
    if source is None:
        raise CheckpointError(f"there is no checkpoint {checkpoint}: check the path")
    if existing_path(folder / "config.json"):
        raise OutputError(f"{folder} contains a model already: choose another folder, or remove it first")
    check_writable([folder / "config.json"])
    if activation not in (None, *ACTIVATIONS):
        raise SettingError(f"unknown activation {activation!r}: choose {' or '.join(ACTIVATIONS)}")
    source = checkpoint_in(source) if source.is_dir() else whole_checkpoint(source)
    state = read_checkpoint(source)
    clip = _openai_state(state)
    if clip is None and (config or activation):
        option = "--config" if config else "--activation"
        raise SettingError(f"{option} is for a CLIP in OpenAI's layout, and {source} is none: omit {option}")
    with building_model(source):
        if _stage(state):
            parts = convert_original(state, source=source.name)
        elif clip is not None:
            beside = source.parent / open_clip.CONFIG
            described = Path(config) if config else beside if beside.is_file() else None
            parts = convert_openai(clip, source=source.name, config=described, activation=activation)
        elif (source.parent / "config.json").is_file():
            return _rewrite(source, state, folder, tokenizer)
        else:
            raise CheckpointError(
                f"{source} is neither a checkpoint of DeOP's authors, nor CLIP in OpenAI's layout, nor next to a "
                f"config.json of the hub's layout. It contains {list_some(sorted(state), 5)}"
            )
    if license or parts.card.license == Card().license:
        parts.card = replace(parts.card, license=license or license_of(source.parent))
    assert isinstance(parts.text, CLIPText)
    place = _tokenizer_for(source.parent, tokenizer)
    if place is not None:
        parts.text.tokenizer = read_tokenizer(place)
    return save_model_folder(parts, _state_of(parts), folder)


def _stage(state: dict[str, Tensor]) -> int:
    """The training stage (1 to 3) of a checkpoint of DeOP's authors; 0 for any other state dict."""
    if not any(key.startswith("clip_adapter.") for key in state):
        return 0
    if not any(key.startswith(("backbone.", "sem_seg_head.")) for key in state):
        return 1
    return 3 if any(key.startswith("decoder.") or key == _QUERIES for key in state) else 2


def convert_original(state: dict[str, Tensor], *, source: str = "") -> ModelParts:
    """The model in a state dict of DeOP's authors, with the settings that it was trained and evaluated with.

    Stage 3 is DeOP itself: a gate in the last block, anchors tied to query slots, ImageNet's channel statistics also
    for the encoder, and padding that counts as image (docs/method.md §1 to §6). Stages 1 and 2 become training-free
    models (§12) with the learned prompt. Stage 2 adds the proposer, and the class embeddings that the two-stream
    baseline uses (§8).

    Raises:
        CheckpointError: missing keys, unknown keys or wrong shapes, by name.
    """
    stage = _stage(state)
    parts = _split(state)
    first_stage = {_CLIP: 1, _PROMPT: 1, _NO_OBJECT: 2, "proposer": 2, _QUERIES: 3, "decoder.": 3}
    problems = [f"{key} is not known" for key in parts[""]]
    problems += [f"{part} is missing" for part, first in first_stage.items() if stage >= first and not parts[part]]
    if stage >= 2 and "criterion.empty_weight" not in state:
        problems.append("criterion.empty_weight is missing")
    if problems:
        raise CheckpointError(f"not a checkpoint of stage {stage} as the authors' code saves it: {list_some(problems)}")

    visual = {key.removeprefix("visual."): value for key, value in parts[_CLIP].items() if key.startswith("visual.")}
    text_state = {key: value for key, value in parts[_CLIP].items() if not key.startswith("visual.")}
    normalization = IMAGENET if stage == 3 else CLIP
    encoder = CLIPVision.from_openai(visual, normalization=normalization, position_rule="count")
    text = CLIPText.from_openai(text_state, parts[_PROMPT])
    proposer = anchors = no_object = None
    if stage >= 2:
        proposer = MaskFormer(config_of_original(parts["proposer"]))
        load_strictly(proposer, from_original_state(parts["proposer"]), "the proposal network")
        no_object = parts[_NO_OBJECT][_NO_OBJECT]
    settings = Settings(resize=Resize(512 if stage == 3 else 640, 2560), templates="single")
    if stage == 3:
        anchors = AnchorDecoder.from_original(parts["decoder."], parts[_QUERIES][_QUERIES])
        settings = Settings(
            resize=settings.resize,
            severance=Severance("gate", (-1,), 1.0, class_token="severed"),
            templates="single",
            anchors="decoder",
            drop_redundant=False,
            padding="inside",
        )
    card = Card(
        name=f"DeOP stage {stage}",
        license="not stated by its authors",
        source=f"converted from {source}, a checkpoint of DeOP's authors",
        training_data="as its authors say: COCO-Stuff or VOC 2012, seen classes; OpenAI's CLIP",
    )
    return ModelParts(encoder, text, proposer, anchors, no_object, settings, card)


def _state_of(parts: ModelParts) -> dict[str, Tensor]:
    """The state dict of the model with these parts."""
    modules = {"encoder": parts.encoder, "text": parts.text, "proposer": parts.proposer, "anchors": parts.anchors}
    state = {
        f"{name}.{key}": value
        for name, module in modules.items()
        if module is not None
        for key, value in module.state_dict().items()
    }
    return state if parts.no_object is None else state | {"no_object": parts.no_object.reshape(-1)}


def _split(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A state dict of DeOP's authors by part; keys that belong to no part are under ""."""
    parts: dict[str, dict[str, Tensor]] = {
        key: {} for key in (_CLIP, _PROMPT, _NO_OBJECT, _QUERIES, "decoder.", "proposer", "")
    }
    for key, value in state.items():
        if key in (_NO_OBJECT, _QUERIES):
            parts[key][key] = value
        elif key.startswith(("backbone.", "sem_seg_head.")):
            parts["proposer"][key] = value
        elif prefix := next((prefix for prefix in (_CLIP, _PROMPT, "decoder.") if key.startswith(prefix)), None):
            parts[prefix][key.removeprefix(prefix)] = value
        elif key not in _UNUSED:
            parts[""][key] = value
    return parts


def _openai_state(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The state dict of a CLIP under OpenAI's keys; None for any other state dict.

    open_clip puts ``text.`` before the keys of the text encoder where a configuration says ``custom_text``.
    """
    state = without_prefix(state, *_PREFIXES)
    if "visual.proj" not in state and "visual.conv1.weight" not in state and "visual.trunk.cls_token" not in state:
        return None
    return {key.removeprefix("text."): value for key, value in state.items()}


def convert_openai(
    state: dict[str, Tensor], *, source: str = "", config: Path | None = None, activation: str | None = None
) -> ModelParts:
    """A training-free model without proposer from a CLIP in OpenAI's layout (docs/method.md §12).

    Args:
        state: the weights.
        source: name of the file, for the model card.
        config: open_clip's configuration of the model. None: heads are those of the published CLIP of the same width.
        activation: "quick_gelu" or "gelu"; None: that of the configuration, or OpenAI's for its own files.

    Raises:
        CheckpointError: not a vision transformer, missing or unknown keys, by name; or heads or activation that nothing
            says, or a configuration that deop cannot run or that is of another model.
    """
    if any(key.startswith("visual.trunk.") for key in state):
        raise CheckpointError("the vision tower of this CLIP is a model of timm: deop runs open_clip's own transformer")
    if any(key.startswith("visual.layer1.") for key in state):
        raise CheckpointError("the vision tower of this CLIP is a ResNet: deop runs vision transformers")
    state = {key: value.float() for key, value in state.items()}
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    text = {key: value for key, value in state.items() if not key.startswith("visual.")}
    vision_sizes, _ = vision_from_openai(visual, heads=1)  # the heads are not known yet
    text_sizes, _ = text_from_openai(text, heads=1)
    if config is None:
        clip = open_clip.architecture_of_weights(vision_sizes["width"], text_sizes["width"], state, activation)
    else:
        clip = open_clip.read_open_clip_config(config)
        if activation not in (None, clip.activation):
            raise SettingError(f"{config} says that the activation is {clip.activation}: omit --activation")
    clip.check("vision", vision_sizes, str(config))
    clip.check("text", text_sizes, str(config))
    encoder = CLIPVision.from_openai(
        visual,
        heads=clip.vision_heads,
        normalization=clip.normalization,
        activation=clip.activation,
        norm_eps=clip.vision_norm_eps,
    )
    tower = CLIPText.from_openai(text, heads=clip.text_heads, activation=clip.activation, norm_eps=clip.text_norm_eps)
    card = Card(name=Path(source).stem, source=f"converted from {source}, CLIP in OpenAI's layout")
    return ModelParts(encoder, tower, None, None, None, Settings(), card)


def _tokenizer_for(folder: Path, choice: str | Path | None) -> Path | None:
    """The folder of the tokenizer: the chosen one, the one beside the weights, or OpenAI's; None with a warning."""
    if choice is not None:
        place = _tokenizer_folder(str(choice))
        read_tokenizer(place)  # raises errors
        return place
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return folder
    try:
        return _tokenizer_folder(TOKENIZER)
    except DeopError as error:
        warnings.warn(
            f"converted without a tokenizer, so the model cannot read names yet: {error}. "
            "Convert again with --tokenizer FOLDER, a folder with the tokenizer of any of OpenAI's CLIPs",
            ConversionWarning,
            stacklevel=3,
        )
        return None


def _tokenizer_folder(name: str) -> Path:
    if folder := existing_folder(name):
        return folder
    from huggingface_hub import snapshot_download

    patterns = ["tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json", "config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # huggingface_hub also raises errors of its HTTP library
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"cannot fetch the tokenizer of {name}: {reason}") from error


def _rewrite(source: Path, state: dict[str, Tensor], folder: Path, tokenizer: str | Path | None) -> Path:
    """Write a hub folder again, with its pickled weights as safetensors. What could not be loaded is not written."""
    from safetensors.torch import save_file

    kind = read_json(source.parent / "config.json").get("model_type")
    place = _tokenizer_for(source.parent, tokenizer) if kind == "clip" else source.parent
    files = [file for file in source.parent.iterdir() if file.suffix in (".json", ".txt", ".md", ".model")]
    with writing_folder(folder) as beside:
        save_file(_cloned(state), str(beside / "model.safetensors"), metadata={"format": "pt"})
        state.clear()  # the check below needs the memory
        for file in files:
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, beside / file.name)
        if place not in (None, source.parent):
            read_tokenizer(place).save_pretrained(beside)
        _check_loads(beside, source, has_tokenizer=place is not None)
    return folder


def _check_loads(folder: Path, source: Path, *, has_tokenizer: bool) -> None:
    """Load a folder as ``deop.load`` would.

    Raises:
        CheckpointError: it cannot be loaded, with the reason.
    """
    from deop.proposals.from_folder import proposer_from_folder  # imports transformers

    try:
        if str(read_json(folder / "config.json").get("model_type")) in TOWERS:
            vision_from_folder(folder)
            if has_tokenizer:
                text_from_folder(folder)
        else:
            proposer_from_folder(folder)
    except DeopError as error:
        reason = str(error).replace(str(folder), str(source.parent))
        raise CheckpointError(f"{source} was not converted: {reason}") from error


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in separate memory: safetensors refuses shared tensors, and transformers expects all keys."""
    return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
