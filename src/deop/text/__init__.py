"""Class names: vocabularies, templates and their embeddings; does not depend on images or masks."""

from deop.text.vocabulary import Vocabulary, VocabularyWarning

__all__ = ["Vocabulary", "VocabularyWarning"]
