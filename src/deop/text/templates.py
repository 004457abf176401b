"""Template sets: sentences that a name is put into, whose embeddings are averaged (docs/method.md §4)."""

from collections.abc import Iterable, Sequence

from deop.errors import VocabularyError

# The default of the original implementation without a learned prompt.
SINGLE = ("a sculpture of a {}.",)

PHOTO = ("a photo of a {}.",)

# For names that are complete sentences.
NONE = ("{}",)

# The 14 sentences of ViLD (github.com/tensorflow/tpu, models/official/detection/projects/vild; Apache-2.0).
VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)

# The 80 sentences of CLIP's ImageNet prompts (github.com/openai/CLIP, notebooks; MIT).
IMAGENET = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

TEMPLATE_SETS = {"single": SINGLE, "photo": PHOTO, "vild": VILD, "imagenet": IMAGENET, "none": NONE}
DEFAULT_TEMPLATES = "vild"


def parse_templates(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    """The sentences of a template set.

    Args:
        templates: the name of a set ("single", "photo", "vild", "imagenet", "none"), one sentence with ``{}`` where
            the name goes, or several of them. None: "vild".

    Returns:
        The sentences, each with ``{}``.

    Raises:
        VocabularyError: the template set is unknown, the list is empty or a set, or a sentence has no ``{}``.

    >>> parse_templates("photo")
    ('a photo of a {}.',)
    """
    if templates is None:
        templates = DEFAULT_TEMPLATES
    if isinstance(templates, str):
        if templates in TEMPLATE_SETS:
            return TEMPLATE_SETS[templates]
        if "{}" not in templates:
            raise VocabularyError(
                f"unknown template set {templates!r}: use one of {', '.join(TEMPLATE_SETS)}, or a sentence with {{}} "
                "where the name goes"
            )
        templates = (templates,)
    if isinstance(templates, set | frozenset):
        raise VocabularyError("the templates are a set, which has no order: give a list")
    if not isinstance(templates, Iterable):
        raise VocabularyError(f"templates must be a string or a list of sentences, not {templates!r}")
    sentences = tuple(templates)
    if not sentences:
        raise VocabularyError("the list of templates is empty: give a sentence such as 'a photo of a {}.', or \"none\"")
    for sentence in sentences:
        if not isinstance(sentence, str) or "{}" not in sentence:
            raise VocabularyError(f"the template {sentence!r} has no {{}}: write it where the name goes")
    return sentences


def fill(template: str, name: str) -> str:
    """Put a name into a template; other braces, in both, are kept."""
    return template.replace("{}", name)
