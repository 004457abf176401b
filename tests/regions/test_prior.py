"""The proposer's class scores as a prior: values by hand, names that it does not know, and refusals."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from deop.errors import SettingError
from deop.images.preprocessing import IMAGENET
from deop.proposals import Proposals
from deop.proposals.transformers_networks import TransformersProposer
from deop.regions.prior import mix, with_prior
from deop.settings import Settings
from deop.text.vocabulary import Vocabulary, VocabularyWarning
from tests.proposals import tiny_networks


def test_values_by_hand():
    """Known are 0.4 and 0.1 of 1, the network says 0.2 and 0.6; with weight 1/2 sqrt(0.08) to sqrt(0.06)."""
    probabilities = torch.tensor([[0.4, 0.3, 0.1, 0.2]])
    mixed = mix(probabilities, torch.tensor([[0.2, 0.6]]), [0, 2], 0.5)
    a, b = 0.08**0.5, 0.06**0.5
    torch.testing.assert_close(mixed, torch.tensor([[0.5 * a / (a + b), 0.3, 0.5 * b / (a + b), 0.2]]))
    torch.testing.assert_close(mix(probabilities, torch.tensor([[0.2, 0.6]]), [0, 2], 0.0), probabilities)
    alone = mix(probabilities, torch.tensor([[0.2, 0.6]]), [0, 2], 1.0)
    torch.testing.assert_close(alone, torch.tensor([[0.125, 0.3, 0.375, 0.2]]))


def test_the_sum_of_known_names_stays_and_scale_does_not_matter():
    torch.manual_seed(0)
    probabilities, own = torch.randn(20, 6).softmax(1), torch.rand(20, 3)
    known = [1, 2, 4]
    mixed = mix(probabilities, own, known, 0.3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(20))
    torch.testing.assert_close(mixed[:, known].sum(1), probabilities[:, known].sum(1))
    assert torch.equal(mixed[:, [0, 3, 5]], probabilities[:, [0, 3, 5]])
    torch.testing.assert_close(mix(probabilities, 0.01 * own, known, 0.3), mixed)
    zeros = mix(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 2), [0, 1], 0.3)
    assert zeros.tolist() == [[0.0, 0.0, 1.0]]


def proposals(*scores):
    scores = torch.tensor(scores)
    return Proposals(
        torch.zeros(len(scores), 2, 2), class_scores=scores, class_names=("cat", "couch", "wall-brick", "wall-tile")
    )


def test_names_and_synonyms_of_the_network():
    vocabulary = Vocabulary.parse("cats, unicorn, sofa|couch, wall", background="cat")
    probabilities = torch.tensor([[0.2, 0.3, 0.2, 0.2, 0.1]])
    mixed = with_prior(probabilities, proposals([0.1, 0.2, 0.2, 0.2]), vocabulary, 1.0)
    torch.testing.assert_close(mixed, torch.tensor([[0.6 / 7, 0.3, 1.2 / 7, 2.4 / 7, 0.1]]))


def test_fewer_than_two_known_names_warn():
    probabilities = torch.tensor([[0.5, 0.4, 0.1]])
    with pytest.warns(VocabularyWarning, match="trained with 1 of the names"):
        result = with_prior(probabilities, proposals([0.1, 0.2, 0.2, 0.2]), Vocabulary.parse("cat, unicorn"), 0.3)
    assert torch.equal(result, probabilities)


def test_given_masks_raise():
    with pytest.raises(SettingError, match="masks were given"):
        with_prior(torch.ones(1, 2), Proposals(torch.zeros(1, 2, 2)), Vocabulary.parse("cat, dog"), 0.3)


@pytest.mark.parametrize("prior", [-0.1, 1.1, float("nan")])
def test_range(prior):
    with pytest.raises(SettingError, match="prior"):
        Settings(prior=prior)


@pytest.fixture(scope="module")
def model():
    import deop

    model = deop.load("nano", engine="torch")
    network = tiny_networks.mask2former()
    network.config.id2label = {0: "cat", 1: "couch", 2: "wall-other-merged"}
    model.set_proposer(TransformersProposer(network, IMAGENET))
    return model


def test_a_model_with_a_prior(model, photo):
    names = ["cat", "sofa|couch", "unicorn", "wall"]
    model.settings = replace(model.settings, prior=0.0)
    encoded = model.encode([photo])[0]
    plain = model.class_probabilities(encoded, names)
    assert "prior" not in model.label(encoded, names).settings
    model.settings = replace(model.settings, prior=0.3)
    mixed = model.class_probabilities(model.encode([photo])[0], names)
    torch.testing.assert_close(mixed[:, [2, 4]], plain[:, [2, 4]])
    scores = encoded.proposals.class_scores
    expected = plain[:, [0, 1, 3]] ** 0.7 * scores**0.3
    expected *= plain[:, [0, 1, 3]].sum(1, keepdim=True) / expected.sum(1, keepdim=True)
    torch.testing.assert_close(mixed[:, [0, 1, 3]], expected, rtol=1e-3, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", VocabularyWarning)
        assert model.segment(photo, names).settings["prior"] == 0.3
    with pytest.raises(SettingError, match="masks were given"):
        model.segment(photo, names, masks=np.ones((1, *photo.shape[:2]), bool))


def test_a_model_with_a_partition(model, photo):
    model.settings = replace(model.settings, prior=0.0, partition="score")
    result = model.segment(photo, ["cat", "sofa"])
    assert result.settings["partition"] == "score"
    masks = model.encode([photo])[0].proposals.logits > 0
    assert (masks.sum(0) <= 1).all()
    halves = np.ones((2, *photo.shape[:2]), bool)
    halves[1, :, : photo.shape[1] // 2] = False
    given = model.encode([photo], [halves])[0].proposals.exact.numpy()
    assert (given[0] == ~halves[1]).all()
    assert (given[1] == halves[1]).all()
    model.settings = replace(model.settings, partition="none")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)


def test_proposers_without_classes_and_other_engines_raise(photo):
    import deop

    model = deop.load("nano", engine="torch")
    model.settings = replace(model.settings, prior=0.3)
    with pytest.raises(SettingError, match=r"NanoProposer has no classes.*--proposer"):
        model.segment(photo, ["cat"])
    model.set_proposer(None)
    with pytest.raises(SettingError, match="masks are given"):
        model.check_encoding()
    light = deop.load("nano", engine="onnx")
    light.settings = replace(light.settings, prior=0.3)
    with pytest.raises(SettingError, match=r"prior 0.3.*--engine torch"):
        light.segment(photo, ["cat"])
    light.settings = replace(light.settings, prior=0.0, partition="score")
    with pytest.raises(SettingError, match=r"partition 'none'.*--engine torch"):
        light.segment(photo, ["cat"])


def test_no_masks():
    none = proposals([0.1, 0.2, 0.2, 0.2]).keep(torch.zeros(0, dtype=torch.long))
    assert none.class_scores.shape == (0, 4)
    assert with_prior(torch.zeros(0, 3), none, Vocabulary.parse("cat, couch"), 0.3).shape == (0, 3)
