"""Built-in vocabularies, to name what a photo shows without choosing names."""

from functools import cache

from deop.errors import VocabularyError
from deop.text import everyday
from deop.text.class_lists import official_classes
from deop.text.vocabulary import Vocabulary

LISTS = {"coco": "coco-stuff", "ade20k": "ade20k-150", "cityscapes": "cityscapes", "everyday": None}
"""Names of the built-in vocabularies, and the class list of each; "everyday" is our own (``deop.text.everyday``)."""


@cache
def builtin_vocabulary(name: str) -> Vocabulary:
    """A vocabulary of common names. A photo keeps those that it shows (``deop.labelling.present_names``).

    Args:
        name: "coco" (171 names of COCO-Stuff), "ade20k" (150), "cityscapes" (19, of street scenes) or "everyday"
            (about 400 names, indoors and outdoors).

    Returns:
        The vocabulary, with synonyms, flags of things and ``source``. The model's templates are used.

    Raises:
        VocabularyError: an unknown name.

    >>> builtin_vocabulary("cityscapes").names[:3]
    ('road', 'sidewalk', 'building')
    """
    if name not in LISTS:
        raise VocabularyError(f"unknown vocabulary {name!r}: choose one of {', '.join(LISTS)}")
    source = LISTS[name]
    if source is None:
        entries = [
            (entry, isthing)
            for text, isthing in ((everyday.THINGS, True), (everyday.STUFF, False))
            for entry in text.replace("\n", ",").split(",")
            if entry.strip()
        ]
    else:
        entries = [(entry.plain or entry.name, bool(entry.isthing)) for entry in official_classes(source)]
    vocabulary = Vocabulary.parse([entry for entry, _ in entries])
    return Vocabulary(vocabulary.synonyms, isthing=tuple(isthing for _, isthing in entries), source=name)
