"""Anchors: parity with the original, pooling by hand, and properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.errors import CheckpointError, SettingError
from deop.regions.anchors import AnchorConfig, AnchorDecoder, pool_regions
from tests.conftest import assert_parity


def variants(file):
    return sorted({key.split(".")[0] for key in file.tensors if key.startswith("layers")})


def original_decoder(file, variant):
    return AnchorDecoder.from_original(
        file.below(f"{variant}.state."),
        file["query_embedding"],
        heads=file.info["heads"],
        gated_layers=variant.endswith("_gated"),
    )


@pytest.mark.parametrize("suffix", ["", "_with_empty"])
@torch.no_grad()
def test_parity_decoder(parity, suffix):
    file = parity("heatmap_decoder")
    features = torch.nn.functional.normalize(file["clip_features_bhwc"], dim=-1).permute(0, 3, 1, 2)
    assert_parity(features.permute(0, 2, 3, 1), file["clip_features_normalised_bhwc"])
    coverage = torch.nn.functional.interpolate(
        file[f"mask_logits{suffix}"].sigmoid(), size=features.shape[-2:], mode="bilinear", align_corners=False
    )
    assert_parity(coverage, file[f"mask_downsampled{suffix}"])
    slots = torch.arange(coverage.shape[1]).expand(len(coverage), -1)
    assert len(variants(file)) >= 3
    for variant in variants(file):
        regions = original_decoder(file, variant)(features, coverage, slots)
        assert_parity(regions.embeddings, file[f"{variant}.embedding_bnd{suffix}"])
        assert_parity(regions.heatmaps, file[f"{variant}.heatmap_per_head{suffix}"])
        assert_parity(regions.heatmaps.mean(1), file[f"{variant}.heatmap_mean{suffix}"])
        pooled = regions.heatmaps.flatten(3) @ features.flatten(2).mT.unflatten(2, (file.info["heads"], -1)).transpose(
            1, 2
        )
        assert_parity(pooled.transpose(1, 2).flatten(2), file[f"{variant}.pooled_unnormalised_bnd{suffix}"])


def test_parity_refuses_incomplete_weights(parity):
    file = parity("heatmap_decoder")
    state = file.below("layers1.state.")
    state["surplus"] = state.pop("layers.0.norm2.bias")
    with pytest.raises(CheckpointError, match=r"layers\.0\.norm2\.bias is missing; surplus is not known"):
        AnchorDecoder.from_original(state, file["query_embedding"], heads=8)


def decoder(query, **options):
    torch.manual_seed(0)
    return AnchorDecoder(AnchorConfig(32, 4, hidden=64, query=query, slots=9, **options)).eval()


def scene(proposals, seed=0):
    torch.manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(2, 32, 4, 5), dim=1)
    return features, torch.rand(2, proposals, 4, 5)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["slot", "mask"]), st.integers(1, 9), st.integers(0, 1000))
@torch.no_grad()
def test_order_of_proposals_has_no_effect(query, proposals, seed):
    features, coverage = scene(proposals, seed)
    slots = torch.randperm(9)[:proposals].expand(2, -1)
    order = torch.randperm(proposals)
    model = decoder(query)
    expected = model(features, coverage, slots).embeddings[:, order]
    embeddings = model(features, coverage[:, order], slots[:, order]).embeddings
    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("query", ["slot", "mask"])
@torch.no_grad()
def test_no_proposals(query):
    features, coverage = scene(0)
    slots = torch.zeros(2, 0, dtype=torch.int64)
    assert decoder(query)(features, coverage, slots).embeddings.shape == (2, 0, 32)
    assert pool_regions(features, coverage).embeddings.shape == (2, 0, 32)


def test_slot_queries_need_slots():
    features, coverage = scene(3)
    with pytest.raises(SettingError, match="tied to the query slots"):
        decoder("slot")(features, coverage)
    assert decoder("mask")(features, coverage).embeddings.shape == (2, 3, 32)


def test_initial_mask_query_is_the_pooled_feature():
    features, coverage = scene(3)
    model = decoder("mask")
    torch.testing.assert_close(model._queries(features, coverage, None), pool_regions(features, coverage).embeddings)


def test_pooling_by_hand():
    features, coverage = scene(3)
    coverage[0, 1] = 0  # the embedding of an empty mask is 0, not NaN
    regions = pool_regions(features, coverage)
    for image in range(2):
        for proposal in range(3):
            total = torch.zeros(32)
            for row in range(4):
                for column in range(5):
                    total += coverage[image, proposal, row, column] * features[image, :, row, column]
            expected = total / total.norm() if total.norm() > 0 else total
            torch.testing.assert_close(regions.embeddings[image, proposal], expected)
    assert regions.embeddings[0, 1].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision(dtype):
    features, coverage = scene(5)
    model = decoder("mask")
    expected = model(features, coverage).embeddings
    embeddings = model.to(dtype)(features.to(dtype), coverage.to(dtype)).embeddings
    assert torch.cosine_similarity(embeddings.float(), expected, dim=-1).min() > 0.99
