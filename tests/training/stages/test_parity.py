"""A training step of the original, from the photo to the gradients of trained parameters (docs/method.md §3 to §7)."""

import torch
from torch import nn

from deop.encoders.severance import Severance
from deop.images.preprocessing import IMAGENET
from deop.model import DeOP
from deop.proposals.types import Proposals
from deop.regions.classification import ClassTensors
from deop.settings import Settings
from deop.training.losses import AnchorWeights
from deop.training.stages.common import labels_of, normalized
from deop.training.stages.deop import map_losses
from tests.conftest import assert_parity
from tests.test_model import original_parts, original_text


class NoText(nn.Module):
    """A stand-in for the text encoder: the test has the embeddings already."""

    width = 32


def test_parity_of_losses_and_gradients(parity):
    file = parity("end_to_end")
    encoder, decoder, state, clip = original_parts(file, "train")
    rows, prefix = original_text(file, state, clip)
    settings = Settings(severance=Severance("gate"), anchors="decoder", padding="inside")
    no_object = state["clip_adapter.non_object_embedding"][0].clone()
    model = DeOP(encoder, NoText(), None, anchors=decoder, no_object=no_object, settings=settings).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)

    pixels = normalized(torch.stack([file["train.image_0"], file["train.image_1"]]), IMAGENET)
    proposals = [Proposals(logits, torch.arange(len(logits))) for logits in file["mask_logits"]]
    labels = file["train.sem_seg"].long()
    assert (labels == 255).any()  # void takes part as "no object"
    classes = ClassTensors(rows, torch.arange(len(rows)), tuple(map(str, range(len(rows)))))
    sizes = [tuple(pixels.shape[-2:])] * 2
    losses = map_losses(model, pixels, sizes, proposals, labels, classes)
    weights = AnchorWeights()
    for actual, key in (
        (weights.focal * losses.focal, "train.weighted.loss_ce"),
        (weights.dice * losses.dice, "train.weighted.loss_decoder_dice"),
        (losses.total(weights), "train.total"),
    ):
        torch.testing.assert_close(actual, file[key].squeeze(), rtol=1e-4, atol=0)

    losses.total(weights).backward()
    visual = "clip_adapter.clip_model.visual."
    learned = encoder.learned_positions
    width = decoder.config.width
    first = 3 - len(encoder.blocks)  # a cut file has no block 0, and no learned positions at its input
    actual = {
        visual + "transformer.resblocks.1.learned_position": learned[str(1 - first)].grad,
        visual + "transformer.resblocks.2.learned_position": learned[str(2 - first)].grad,
        "clip_adapter.non_object_embedding": model.no_object.grad[None],
        "decoder.layers.0.linear1.weight": decoder.layers[0].up.weight.grad,
        "query_embedding.weight": decoder.queries.grad,
    }
    if "input" in learned:
        actual[visual + "learned_position"] = learned["input"].grad
    if prefix is not None:
        actual["clip_adapter.prompt_learner.prefix_prompt"] = prefix.grad
    packed = "decoder.outlayer.multihead_attn_my.in_proj_"
    expected = file.below("train.grad.")
    assert set(actual) | {packed + "weight", packed + "bias"} == set(expected)
    for key, value in actual.items():
        assert_parity(value, expected[key], 1e-4)
    for part in ("weight", "bias"):
        assert_parity(getattr(decoder.query_key, part).grad, expected[packed + part][: 2 * width], 1e-4)
        assert not expected[packed + part][2 * width :].any()  # the third that is left behind has no effect


def test_void_pixels_get_the_label_of_the_losses():
    assert labels_of(torch.tensor([[-1, 0], [4, -1]])).tolist() == [[255, 0], [4, 255]]
