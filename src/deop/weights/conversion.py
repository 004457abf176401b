"""Converting published checkpoints to safetensors: the only module that reads a pickle.

It uses ``torch.load(weights_only=True)``, which does not run code from the file.
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
from deop.files import PICKLE_SUFFIXES, existing_folder, existing_path, move_model_files
from deop.images.preprocessing import CLIP, IMAGENET, Resize
from deop.networks.loading import building_model, list_some, load_strictly, read_weights
from deop.proposals.maskformer import MaskFormer, config_of_original, from_original_state
from deop.regions.anchors import AnchorDecoder
from deop.settings import Card, Settings
from deop.weights.format import ModelParts, save_model_folder

TOKENIZER = "openai/clip-vit-base-patch16"
"""Hub repo of the default tokenizer, which all of OpenAI's CLIPs share."""

_CLIP, _PROMPT = "clip_adapter.clip_model.", "clip_adapter.prompt_learner."
_NO_OBJECT, _QUERIES = "clip_adapter.non_object_embedding", "query_embedding.weight"
# Saved with the weights but not used: weights of the loss, and the pixel statistics of stage 2, which are CLIP's.
_UNUSED = ("criterion.empty_weight", "clip_adapter.pixel_mean", "clip_adapter.pixel_std")


class ConversionWarning(UserWarning):
    """The checkpoint was converted, but a part that it needs is missing."""


def convert(checkpoint: str | Path, out: str | Path, *, tokenizer: str | Path | None = None) -> Path:
    """Convert a published checkpoint. Its keys tell which of these it is:

    * a checkpoint of DeOP's authors, of stage 1 (prompt), 2 (proposals) or 3 (DeOP): becomes a model in deop's own
      format;
    * a state dict of CLIP in OpenAI's layout: becomes a model without proposer, in deop's own format;
    * the pickled weights of a hub folder (a file next to its ``config.json``, or the folder): becomes the same folder
      with safetensors.

    Args:
        checkpoint: file or folder.
        out: folder to write; must not contain a model.
        tokenizer: folder or hub repo with CLIP's tokenizer, which is not part of a checkpoint. None: OpenAI's, from
            this machine's cache or the hub; without either, the model is written without a tokenizer, with a warning.

    Returns:
        ``out``.

    Raises:
        CheckpointError: a file of another kind, or missing or unknown keys, by name.
        OutputError: ``out`` contains a model already, or cannot be written.
    """
    source, folder = existing_path(checkpoint), Path(out)
    if source is None:
        raise CheckpointError(f"there is no checkpoint {checkpoint}: check the path")
    if existing_path(folder / "config.json"):
        raise OutputError(f"{folder} contains a model already: choose another folder, or remove it first")
    if source.is_dir():
        source = _pickle_in(source)
    state = read_checkpoint(source)
    with building_model(source):
        if _stage(state):
            parts = convert_original(state, source=source.name)
        elif "visual.conv1.weight" in state:
            parts = convert_openai(state, source=source.name)
        elif (source.parent / "config.json").is_file():
            return _rewrite(source, state, folder)
        else:
            raise CheckpointError(
                f"{source} is neither a checkpoint of DeOP's authors, nor CLIP in OpenAI's layout, nor next to a "
                f"config.json of the hub's layout. It contains {list_some(sorted(state), 5)}"
            )
    _attach_tokenizer(parts, tokenizer)
    return save_model_folder(parts, _state_of(parts), folder)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, pickled or safetensors, without running code from it.

    Raises:
        CheckpointError: missing, damaged, or not a state dict of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: check the path")
    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends torch.jit.load, which runs code, for TorchScript
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of pickle and zip, and several of its own
        if "TorchScript" in str(error):
            reason = "it is a TorchScript archive. If you trust it, save its state dict with torch, and convert that"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read {path} without running code in it: {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} does not contain a state dict: choose the file with the weights")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if others := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{path} contains entries that are not tensors: {list_some(others)}. Save the state dict alone"
        )
    return tensors


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


def convert_openai(state: dict[str, Tensor], *, source: str = "") -> ModelParts:
    """A training-free model without proposer from a CLIP in OpenAI's layout (docs/method.md §12).

    Raises:
        CheckpointError: not a vision transformer, or missing or unknown keys, by name.
    """
    state = {key: value.float() for key, value in state.items()}
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    text_state = {key: value for key, value in state.items() if not key.startswith("visual.")}
    card = Card(name=Path(source).stem, license="MIT", source=f"converted from {source}, CLIP in OpenAI's layout")
    text = CLIPText.from_openai(text_state)
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
            f"converted without a tokenizer, so the model cannot read names yet: {error}. "
            "Convert again with --tokenizer FOLDER, a folder with the tokenizer of any of OpenAI's CLIPs",
            ConversionWarning,
            stacklevel=3,
        )


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


def _pickle_in(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if not files:
        raise CheckpointError(f"{folder} has no pickled weights to convert: give the file, or another folder")
    candidates = [file for file in files if file.name == "pytorch_model.bin"] or files
    if len(candidates) != 1:
        raise CheckpointError(
            f"{folder} has {len(files)} pickled files ({list_some([file.name for file in files])}): give one of them"
        )
    return candidates[0]


def _rewrite(source: Path, state: dict[str, Tensor], folder: Path) -> Path:
    """Write a hub folder again, with its pickled weights as safetensors."""
    from safetensors.torch import save_file

    files = [
        file
        for file in source.parent.iterdir()
        if file.suffix in (".json", ".txt", ".md") and not file.name.endswith(".index.json")
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".deop-", dir=folder) as temporary:
            beside = Path(temporary)
            save_file(_cloned(state), str(beside / "model.safetensors"), metadata={"format": "pt"})
            for file in files:
                shutil.copyfile(file, beside / file.name)
            move_model_files(beside, folder)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror or error}. Choose a folder you may write to"
        ) from error
    return folder


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in separate memory: safetensors refuses shared tensors, and transformers expects all keys."""
    return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
