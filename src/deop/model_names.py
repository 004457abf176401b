"""What every model does with names: vocabularies, their embeddings, and examples beside words. No torch."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deop.errors import SettingError, VocabularyError
from deop.protocols import TextEncoder, is_table
from deop.settings import Settings
from deop.text.calibration import Calibration
from deop.text.embedded_classes import Classes
from deop.text.embedding import embed_vocabulary
from deop.text.embedding_cache import EmbeddingCache
from deop.text.templates import NONE, parse_templates
from deop.text.vocabulary import Vocabulary, VocabularyWarning

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.bank.scoring import Examples
    from deop.surface import ModelSurface

Names = Sequence[str] | str | Vocabulary
"""Class names in any accepted form."""


class ModelNames:
    """The methods of ``ModelSurface`` about names; that class describes the attributes."""

    text: TextEncoder | Any
    settings: Settings
    cache: EmbeddingCache | None
    _last_embedded: tuple[tuple[Vocabulary, Any, Calibration], Classes] | None = None
    _last_probe: tuple[Settings, np.ndarray] | None = None
    _last_examples: "tuple[tuple[Classes, Settings, Bank, float | None], Examples | None] | None" = None

    def vocabulary(
        self,
        names: Names | None,
        *,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        bank: "Bank | None" = None,
        bank_weight: float | None = None,
    ) -> Vocabulary:
        """Create a vocabulary, as for ``segment``; templates default to those of the model's settings.

        Raises:
            VocabularyError: no names and no bank, invalid names, or two names that are one name of the bank.
            SettingError: a bank of another model, or a weight that is not in [0, 1].

        Warns:
            VocabularyWarning: the model's text encoder does not use the templates.
        """
        if templates is not None and not self.text.uses_templates and parse_templates(templates) != NONE:
            warnings.warn(
                "templates have no effect with this model: its text encoder reads names without a sentence. Omit them "
                "(--templates)",
                VocabularyWarning,
                stacklevel=2,
            )
        if names is None:
            names = _names_of(bank, background)
        if templates is None and not (isinstance(names, Vocabulary) and names.source is None):
            templates = self.settings.templates
        vocabulary = Vocabulary.parse(names, background=background, templates=templates, things=things)
        if bank is None and bank_weight is None:
            return vocabulary
        from deop.bank.scoring import check_weight
        from deop.bank.space import check_bank

        bank = vocabulary.bank if bank is None else bank
        if bank is None:
            raise SettingError("bank_weight has no effect without examples: give a bank (bank=..., --bank)")
        check_weight(bank_weight)
        check_bank(cast("ModelSurface", self), bank)
        bank.columns(vocabulary)
        return replace(vocabulary, bank=bank, bank_weight=bank_weight)

    def embed(self, vocabulary: Vocabulary, *, progress: bool = False) -> Classes:
        """Calibrated embeddings of a vocabulary; kept until text encoder or settings change."""
        encoder = self.text if is_table(self.text) else self.text.identity
        key, last = (vocabulary, encoder, self.settings.calibration), self._last_embedded
        if last is not None and last[0] == key:
            return last[1]
        # Read once and set once, since another thread may embed another vocabulary in between.
        classes = embed_vocabulary(
            vocabulary, self.text, self.settings.calibration, cache=self.cache, progress=progress
        )
        self._last_embedded = (key, classes)
        return classes

    @staticmethod
    def record_of_bank(vocabulary: Vocabulary) -> dict[str, Any]:
        """What a result says about the examples that it was made with; empty without any."""
        if vocabulary.bank is None:
            return {}
        from deop.bank.scoring import check_weight

        return {"bank": vocabulary.bank.digest[:16], "bank_weight": check_weight(vocabulary.bank_weight)}

    def examples(
        self, encoded: Any, vocabulary: Vocabulary, score: Callable[[np.ndarray], np.ndarray]
    ) -> "Examples | None":
        """The examples of a vocabulary, ready to score the regions of a photo; kept until bank or names change.

        Args:
            encoded: the photo.
            vocabulary: the names.
            score: gives the logits (N, K + 1) of regions (N, C) by words alone.

        Returns:
            The examples; None if the vocabulary has none, or they do not count.

        Raises:
            SettingError: the photo was encoded in another way than the examples.
        """
        bank = vocabulary.bank
        if bank is None or vocabulary.bank_weight == 0:
            return None
        from deop.bank.scoring import prepare

        bank.space.check_encoding(encoded.settings, "the bank does not fit this photo")
        key, last = (self.embed(vocabulary), self.settings, bank, vocabulary.bank_weight), self._last_examples
        if last is not None and last[0][0] is key[0] and last[0][1:] == key[1:]:
            return last[1]
        examples = prepare(bank, vocabulary, score, vocabulary.bank_weight)
        self._last_examples = (key, examples)
        return examples


def _names_of(bank: "Bank | None", background: Sequence[str] | str) -> list[str]:
    """The names to ask for if only a bank is given.

    Raises:
        VocabularyError: there is none, or it has no names.
    """
    if bank is None:
        raise VocabularyError("there are no class names: give some, such as 'cat, sofa, wall', or a bank with examples")
    from deop.bank.bank import names_to_ask

    return names_to_ask(bank.named, background)
