"""The proposer's own class scores as a prior, for the requested names that it was trained with (docs/method.md §6)."""

import warnings

import torch
from torch import Tensor

from deop.errors import SettingError
from deop.proposals.types import Proposals
from deop.text.known_classes import known_classes
from deop.text.vocabulary import Vocabulary, VocabularyWarning

REMEDY = (
    "choose a MaskFormer, Mask2Former, OneFormer or EoMT as proposer (proposer=..., --proposer), or omit the prior "
    "(prior=0, --prior 0)"
)


def check_prior(proposer: object) -> None:
    """Refuse a prior for a source of masks that has no classes.

    Raises:
        SettingError: naming it.
    """
    if not getattr(proposer, "class_names", ()):
        source = "masks are given" if proposer is None else f"{type(proposer).__name__} has no classes"
        raise SettingError(f"the prior mixes class scores of the proposer, but {source}: {REMEDY}")


def with_prior(probabilities: Tensor, proposals: Proposals, vocabulary: Vocabulary, prior: float) -> Tensor:
    """Probabilities with those of the names that the proposer was trained with mixed with its own scores.

    Args:
        probabilities: (N, K + 1) float32, the K names and, last, "none of these".
        proposals: N masks with class scores.
        vocabulary: the K names.
        prior: weight of the class scores, in [0, 1].

    Returns:
        (N, K + 1) float32.

    Raises:
        SettingError: the masks have no class scores, because they were given.

    Warns:
        VocabularyWarning: the proposer was trained with fewer than two of the names, so that nothing changes.
    """
    if proposals.class_scores is None:
        raise SettingError(f"the prior mixes class scores of the proposer, but these masks were given: {REMEDY}")
    classes = known_classes(vocabulary.synonyms, proposals.class_names)
    known = [name for name, found in enumerate(classes) if found]
    if len(known) < 2:
        warnings.warn(
            f"the prior has no effect: the proposer was trained with {len(known)} of the names, and it only decides "
            "between names of its training",
            VocabularyWarning,
            stacklevel=2,
        )
        return probabilities
    own = torch.stack([proposals.class_scores[:, list(classes[name])].sum(1) for name in known], 1)
    return mix(probabilities, own.to(probabilities.device), known, prior)


def mix(probabilities: Tensor, own: Tensor, known: list[int], prior: float) -> Tensor:
    """The geometric mean of two classifiers over the names that both know; their sum stays as it was.

    With s = sum_known p_k, q_k = s * p_k^(1 - prior) own_k^prior / sum_known p_j^(1 - prior) own_j^prior for known
    names, and q_k = p_k for all others. As FC-CLIP's ensemble (Yu and others 2023), but for the sum: there the known
    names can win or lose against the others.

    Args:
        probabilities: (N, K + 1) float.
        own: (N, k) float, scores of the other classifier for the known names, in any scale.
        known: k indices of names.
        prior: in [0, 1].
    """
    part = probabilities[:, known]
    smallest = torch.finfo(torch.float32).tiny
    logs = [values.float().clamp_min(smallest).log() for values in (part, own)]
    shares = ((1 - prior) * logs[0] + prior * logs[1]).softmax(1)
    result = probabilities.clone()
    result[:, known] = part.sum(1, keepdim=True) * shares
    return result
