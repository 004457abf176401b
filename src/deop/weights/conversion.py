"""Published checkpoints into formats that hold no code: the only place that ever reads a pickle.

``torch.load(weights_only=True)`` runs nothing that is in the file.
"""

import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.severance import Severance
from deop.errors import CheckpointError, DeopError, OutputError
from deop.files import PICKLE_SUFFIXES
from deop.images.preprocessing import CLIP, IMAGENET, Resize
from deop.networks.loading import list_some, load_strictly, read_weights
from deop.proposals.maskformer import MaskFormer, config_of_original, from_original_state
from deop.regions.anchors import AnchorDecoder
from deop.settings import Card, Settings
from deop.weights.format import ModelParts, save_model_folder

TOKENIZER = "openai/clip-vit-base-patch16"
"""Where CLIP's tokenizer is taken from unless another is named."""

_CLIP, _PROMPT = "clip_adapter.clip_model.", "clip_adapter.prompt_learner."
_NO_OBJECT, _QUERIES = "clip_adapter.non_object_embedding", "query_embedding.weight"
# Saved beside the weights, without a part in any result: loss weights, and stage 2's pixel statistics (CLIP's own).
_UNUSED = ("criterion.empty_weight", "clip_adapter.pixel_mean", "clip_adapter.pixel_std")


class ConversionWarning(UserWarning):
    """The checkpoint was converted, but something is missing to use it in full."""


def convert(checkpoint: str | Path, out: str | Path, *, tokenizer: str | Path | None = None) -> Path:
    """Convert a published checkpoint.

    What it may be, told by its keys:

    * a checkpoint of DeOP's authors, of stage 1 (prompt), 2 (proposals) or 3 (DeOP): a model in deop's own format;
    * a state dict of CLIP in OpenAI's layout: a model without proposer, in deop's own format;
    * the pickled weights of a hub folder (a file beside its ``config.json``, or the folder): the same folder with
      safetensors.

    Args:
        checkpoint: file or folder.
        out: folder to write; must not hold a model yet.
        tokenizer: folder or hub repo with CLIP's tokenizer, which no checkpoint carries. None: OpenAI's, from this
            machine's cache or the hub; where there is neither, the model is written without, with a warning.

    Returns:
        The folder written.

    Raises:
        CheckpointError: a file of another kind, or keys that are missing or surplus, by name.
        OutputError: the folder holds a model already, or cannot be written.
    """
    source, folder = Path(checkpoint), Path(out)
    if (folder / "config.json").exists():
        raise OutputError(f"{folder} holds a model already: choose another folder, or remove it first")
    if source.is_dir():
        source = _pickle_in(source)
    state = read_checkpoint(source)
    if _stage(state):
        parts = convert_original(state, source=source.name)
    elif "visual.conv1.weight" in state:
        parts = convert_openai(state, source=source.name)
    elif (source.parent / "config.json").is_file():
        return _rewrite(source, state, folder)
    else:
        raise CheckpointError(
            f"{source} is neither a checkpoint of DeOP's authors, nor CLIP in OpenAI's layout, nor beside a "
            f"config.json of the hub's layout. It holds {list_some(sorted(state), 5)}"
        )
    _attach_tokenizer(parts, tokenizer)
    return save_model_folder(parts, _state_of(parts), folder)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, pickled or safetensors, without running anything in it.

    Raises:
        CheckpointError: not there, damaged, or holding more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends torch.jit.load, which runs code, for TorchScript
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and end-of-file errors alike
        if "TorchScript" in str(error):
            reason = "it is a TorchScript archive. Save its state dict where you trust it, and convert that"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read {path} without running code in it: {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no state dict")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if surplus := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path} holds more than tensors: {list_some(surplus)}")
    return tensors


def _stage(state: dict[str, Tensor]) -> int:
    """The stage of an authors' checkpoint, 0 where it is none."""
    if not any(key.startswith("clip_adapter.") for key in state):
        return 0
    if not any(key.startswith(("backbone.", "sem_seg_head.")) for key in state):
        return 1
    return 3 if any(key.startswith("decoder.") or key == _QUERIES for key in state) else 2


def convert_original(state: dict[str, Tensor], *, source: str = "") -> ModelParts:
    """The model of an authors' state dict, with the settings that it was trained and evaluated with.

    Stage 3 is DeOP itself: the last block gated, slot-tied anchors, ImageNet's statistics for the encoder too, padding
    taken for image (METHOD sections 1 to 6). Stages 1 and 2 give training-free models (section 12) with the learned
    prompt; stage 2 brings its proposals, and the two-stream baseline its class embeddings (section 8).

    Raises:
        CheckpointError: keys that are missing, surplus, or of a wrong shape, by name.
    """
    stage = _stage(state)
    parts = _split(state)
    complaints = [f"{key} is not known" for key in parts[""]]
    for prefix, least in ((_CLIP, 1), (_PROMPT, 1), (_NO_OBJECT, 2), ("proposer", 2), (_QUERIES, 3), ("decoder.", 3)):
        if stage >= least and not parts[prefix]:
            complaints.append(f"{prefix} is missing")
    if stage >= 2 and "criterion.empty_weight" not in state:
        complaints.append("criterion.empty_weight is missing")
    if complaints:
        raise CheckpointError(
            f"not a checkpoint of stage {stage} as the authors' code saves it: {list_some(complaints)}"
        )

    visual = {key.removeprefix("visual."): value for key, value in parts[_CLIP].items() if key.startswith("visual.")}
    words = {key: value for key, value in parts[_CLIP].items() if not key.startswith("visual.")}
    normalization = IMAGENET if stage == 3 else CLIP
    encoder = CLIPVision.from_openai(visual, normalization=normalization, position_rule="count")
    text = CLIPText.from_openai(words, parts[_PROMPT])
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
    """An authors' state dict by its parts; under "" what belongs to none of them."""
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


def convert_openai(state: dict[str, Tensor], *, source: str = "") -> ModelParts:
    """A training-free model without proposer, of a CLIP in OpenAI's own layout (METHOD section 12).

    Raises:
        CheckpointError: not a vision transformer, or keys that are missing or surplus, by name.
    """
    state = {key: value.float() for key, value in state.items()}
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    words = {key: value for key, value in state.items() if not key.startswith("visual.")}
    card = Card(name=Path(source).stem, license="MIT", source=f"converted from {source}, CLIP in OpenAI's layout")
    text = CLIPText.from_openai(words)
    return ModelParts(CLIPVision.from_openai(visual), text, None, None, None, Settings(), card)


def _attach_tokenizer(parts: ModelParts, tokenizer: str | Path | None) -> None:
    from deop.encoders.clip_text import read_tokenizer

    assert isinstance(parts.text, CLIPText)
    try:
        parts.text.tokenizer = read_tokenizer(_tokenizer_folder(str(tokenizer or TOKENIZER)))
    except DeopError as error:
        if tokenizer is not None:
            raise
        warnings.warn(
            f"converted without a tokenizer, so the model cannot read names yet: {error} "
            "Convert again with --tokenizer FOLDER, any folder with the tokenizer of an OpenAI CLIP",
            ConversionWarning,
            stacklevel=3,
        )


def _tokenizer_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    patterns = ["tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json", "config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises errors of many libraries
        raise CheckpointError(f"cannot fetch the tokenizer of {name}: {str(error).splitlines()[0]}.") from error


def _pickle_in(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    named = [file for file in files if file.name == "pytorch_model.bin"] or files
    if len(named) != 1:
        raise CheckpointError(
            f"{folder} has {len(files)} pickled files ({list_some([f.name for f in files])}): name one"
        )
    return named[0]


def _rewrite(source: Path, state: dict[str, Tensor], folder: Path) -> Path:
    """A hub folder again, its pickled weights as safetensors."""
    from safetensors.torch import save_file

    kept = [file for file in source.parent.iterdir() if file.suffix in (".json", ".txt", ".md")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".deop-", dir=folder) as beside:
            save_file(_cloned(state), str(Path(beside, "model.safetensors")), metadata={"format": "pt"})
            Path(beside, "model.safetensors").replace(folder / "model.safetensors")
        for file in sorted(kept, key=lambda file: file.name == "config.json"):
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor with storage of its own: safetensors refuses tied weights, and transformers wants all keys."""
    return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
