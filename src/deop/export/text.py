"""The text side of an exported folder: CLIP's text tower as a graph with its tokenizer, or a table of names."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.encoders.clip_text import CLIPText
from deop.encoders.learned_prompt import LearnedPrompt
from deop.encoders.siglip_text import SiglipText
from deop.encoders.tips_text import TipsText
from deop.errors import SettingError
from deop.export.tracing import trace
from deop.model import DeOP
from deop.networks.attention import HIDDEN
from deop.runtime.config import TextParts
from deop.text.embedding import embed_texts
from deop.text.everything_else import COMMON
from deop.text.templates import NONE
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import onnx

TextTowers = CLIPText | SiglipText | TipsText
"""Text encoders whose towers can be exported."""
TOKENIZER = "tokenizer.json"
NAMES = "names.safetensors"
"""File with the table of names."""


class TextGraph(nn.Module):
    """CLIP's text tower for texts whose length is not known: token ids -> embeddings.

    Args:
        text: in evaluation mode.
    """

    def __init__(self, text: CLIPText) -> None:
        super().__init__()
        self.text = text
        self.table = text.tower.text_model.embeddings.token_embedding

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts.

        Args:
            tokens: (n, length) int64, start token, text, end token, and then any tokens as padding.

        Returns:
            (n, C) float32, not normalised.
        """
        end = self.end(tokens)
        embeddings = self.table(tokens)
        if self.text.prompt is not None:
            embeddings, end = with_prompt(self.text.prompt, embeddings, end)
        model = self.text.tower.text_model
        x = model.embeddings(inputs_embeds=embeddings)
        length = x.shape[1]
        place = torch.arange(length)
        causal = torch.where(place[None] <= place[:, None], 0.0, torch.finfo(torch.float32).min)
        x = model.encoder(inputs_embeds=x, attention_mask=causal[None, None]).last_hidden_state
        at_end = (place == end[:, None]).float()[:, None] @ x  # (n, 1, width)
        return self.text.tower.text_projection(model.final_layer_norm(at_end[:, 0]))

    def end(self, tokens: Tensor) -> Tensor:
        """The position of the end token in each text, (n,) int64."""
        if self.text.config.end_token is None:
            is_end = tokens == tokens.amax(1, keepdim=True)
        else:
            is_end = tokens == self.text.config.end_token
        return is_end.int().argmax(1)


class SiglipTextGraph(nn.Module):
    """SigLIP's text tower for texts whose length is not known: token ids -> embeddings.

    Args:
        text: in evaluation mode, with its tokenizer.
    """

    def __init__(self, text: SiglipText) -> None:
        super().__init__()
        self.tower, self.context = text.tower, text.context_length
        self.end, self.pad = text.tokenizer.eos_token_id, text.tokenizer.pad_token_id or 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts (n, length) int64, as ``TextGraph`` does: (n, C) float32.

        Tokens after the end token become padding, and padding is added up to the context length, since it has an
        effect.
        """
        is_end = (tokens == self.end).long()
        ids = torch.where(is_end.cumsum(1) - is_end > 0, self.pad, tokens)
        ids = F.pad(ids, (0, self.context - ids.shape[1]), value=self.pad)
        x = self.tower.embeddings(input_ids=ids)
        x = self.tower.encoder(inputs_embeds=x).last_hidden_state
        return self.tower.head(self.tower.final_layer_norm(x)[:, -1])


class TipsTextGraph(nn.Module):
    """TIPSv2's text tower for texts whose length is not known: token ids -> embeddings.

    Its texts have no end token. The exported tokenizer appends padding in its place, so that texts are padded with it.

    Args:
        text: in evaluation mode, with its tokenizer.
    """

    def __init__(self, text: TipsText) -> None:
        super().__init__()
        self.tower, self.pad = text.tower, text.tokenizer.pad_token_id or 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts (n, length) int64, as ``TextGraph`` does: (n, C) float32. The last token of all is padding."""
        ids = tokens[:, :-1]
        inside = ids != self.pad
        x = self.tower.embeddings(input_ids=ids)
        bias = torch.where(inside, 0.0, HIDDEN)[:, None, None]
        x = self.tower.final_layer_norm(self.tower.encoder(inputs_embeds=x, attention_mask=bias).last_hidden_state)
        weight = inside.float()[..., None]
        # Not + config.pooling_eps, which graphs lose: it is below the precision of a sum of 1 or more.
        return (x * weight).sum(1) / weight.sum(1).clamp_min(1)


def with_prompt(prompt: LearnedPrompt, embeddings: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """``LearnedPrompt.forward`` for texts that are padded.

    Args:
        prompt: the vectors around the name.
        embeddings: (n, length, width) float, of all tokens.
        end: (n,) int64, position of the end token.

    Returns:
        Embeddings (n, length - 2 + overhead, width) and the new positions of the end token.
    """
    count, length, width = embeddings.shape
    before, after = prompt.prefix.shape[0], prompt.suffix.shape[0]
    fixed = torch.cat([prompt.start, prompt.prefix, prompt.suffix, prompt.dot, prompt.end, prompt.pad])
    source = torch.cat([fixed.expand(count, -1, -1), embeddings], 1)
    place = torch.arange(length - 2 + prompt.overhead)[None]
    name_end = before + end[:, None]  # the name has the positions 1 + before to before + end - 1 of the result
    shown = fixed.shape[0]
    from_name = shown + place - before  # where a token of the name is in ``source``
    behind = (place - name_end + 1 + before).clamp_max(shown - 1)  # suffix, ".", end, and then padding
    index = torch.where(place <= before, place, torch.where(place < name_end, from_name, behind))
    return source.gather(1, index[..., None].expand(-1, -1, width)), name_end[:, 0] + after + 1


def trace_text(text: TextTowers) -> "onnx.ModelProto":
    """The graph of a text tower in float32: tokens (n, length) int64 -> embeddings (n, C) float32.

    Raises:
        SettingError: it cannot be exported.
    """
    count = torch.export.Dim("count", min=1)
    length = torch.export.Dim("length", min=3, max=text_length(text))
    graph: nn.Module
    if isinstance(text, TipsText):
        graph = TipsTextGraph(text)
    else:
        graph = SiglipTextGraph(text) if isinstance(text, SiglipText) else TextGraph(text)
    with _plain_attention(text.tower):
        return trace(
            graph.eval(),
            (torch.ones(3, 9, dtype=torch.int64),),
            {"tokens": {0: count, 1: length}},
            ("embeddings",),
            "the text encoder",
        )


def write_tokenizer(text: TextTowers, path: Path) -> None:
    """Write the tokenizer in the format of the library tokenizers.

    Raises:
        SettingError: the text encoder has no tokenizer, or one of another library (SentencePiece).
    """
    if text.tokenizer is None:
        raise SettingError(
            "the text encoder has no tokenizer, which the exported folder needs: load the model from a folder with "
            "one, or export a table of names instead (names=..., --classes)"
        )
    if not hasattr(text.tokenizer, "backend_tokenizer"):
        raise SettingError(
            "the tokenizer of this SigLIP needs SentencePiece, which exported folders do without: export a table of "
            "names instead (names=..., --classes), or use a SigLIP 2"
        )
    from tokenizers import Tokenizer, normalizers, processors

    backend = Tokenizer.from_str(text.tokenizer.backend_tokenizer.to_str())
    if isinstance(text, SiglipText):
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
    if isinstance(text, TipsText):
        index = text.tokenizer.pad_token_id or 0
        pad = text.tokenizer.convert_ids_to_tokens(index)
        backend.post_processor = processors.TemplateProcessing(single=["$A", pad], special_tokens=[(pad, index)])
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(path))


def text_length(text: TextTowers) -> int:
    """Maximum number of tokens of a text with start and end, without those that a learned prompt adds."""
    if isinstance(text, TipsText):
        return text.context_length + 1  # the token in place of an end token
    prompt = getattr(text, "prompt", None)
    return text.context_length - (0 if prompt is None else prompt.overhead - 2)


def clip_parts(text: TextTowers, graph: str, precision: str) -> TextParts:
    """What the config says about a text tower."""
    return TextParts(
        "clip",
        graph=graph,
        tokenizer=TOKENIZER,
        width=text.width,
        context_length=text_length(text),
        uses_templates=text.uses_templates,
        identity=text.identity if precision == "float32" else f"{text.identity}-{precision}",
    )


def write_names(model: DeOP, vocabulary: Vocabulary, path: Path) -> TextParts:
    """Embed the names of a vocabulary, and write them as a table instead of the text encoder.

    The table also has the names that stand for everything else, so that "background" can be requested.

    Args:
        model: with any text encoder.
        vocabulary: the names, their synonyms and the background.
        path: the safetensors file.

    Returns:
        What the config says about the table.
    """
    from safetensors.numpy import save_file

    text = model.text
    texts = [name for names in vocabulary.synonyms for name in names]
    texts += [*vocabulary.background, *(model.settings.calibration.rivals or COMMON)]
    texts = list(dict.fromkeys(texts))
    templates: Sequence[str] = vocabulary.templates if text.uses_templates else NONE
    with torch.inference_mode():
        rows = embed_texts(texts, templates, text)
    # None of the rows is a sentence any more: the mean over the templates is taken here.
    save_file({"rows": np.ascontiguousarray(rows)}, path, metadata={"texts": json.dumps(texts)})
    return TextParts("names", file=path.name, width=text.width)


@contextmanager
def _plain_attention(tower: Any) -> Iterator[None]:
    """Let a transformers model compute attention by plain products, which the exporter can trace for any size."""
    before = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        yield
    finally:
        tower.set_attn_implementation(before)
