"""Class names: vocabularies, templates and their embeddings; knows nothing of images."""

from deop.text.vocabulary import Vocabulary, VocabularyWarning

__all__ = ["Vocabulary", "VocabularyWarning"]
