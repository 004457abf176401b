"""The trunk of the small model, and sharing it."""

import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import nn

from deop.networks.efficientnet import Convolution, EfficientNetLite, fold
from deop.networks.shared_trunk import SharedTrunk, reuse_features


def test_strides_and_widths():
    shapes = [tuple(x.shape) for x in EfficientNetLite(dense=False).eval()(torch.rand(1, 3, 64, 70))]
    assert shapes == [(1, 24, 16, 24), (1, 48, 8, 12), (1, 120, 4, 6), (1, 352, 2, 3)]


def test_dense_trunk_differs_only_in_the_deepest_features():
    torch.manual_seed(0)
    strided, dense = EfficientNetLite(dense=False).eval(), EfficientNetLite().eval()
    dense.load_state_dict(strided.state_dict())
    photo = torch.randn(1, 3, 64, 96)
    *strided_features, deepest = strided(photo)
    *dense_features, finer = dense(photo)
    assert all(torch.equal(a, b) for a, b in zip(strided_features, dense_features, strict=True))
    assert finer.shape[-2:] == (4, 6)
    assert deepest.shape[-2:] == (2, 3)


def test_same_padding_at_stride_two_pads_bottom_and_right():
    convolution, x = Convolution(2, 3, 3, 2), torch.randn(1, 2, 8, 8)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), convolution.weight, convolution.bias, stride=2)
    assert torch.equal(convolution(x), expected)


def test_folding_equals_convolution_then_batch_norm():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    state = {"_conv_stem.weight": convolution.weight, "_conv_head.weight": torch.randn(4, 3, 1, 1)}
    state |= {f"_bn0.{key}": value for key, value in norm.state_dict().items()}
    state |= {f"_bn1.{key}": torch.ones(4) for key in ("weight", "bias", "running_mean", "running_var")}
    state |= {"_fc.weight": torch.randn(5, 4), "_fc.bias": torch.randn(5)}
    state |= {"_blocks.0._project_conv.weight": torch.randn(16, 32, 1, 1)}
    state |= {f"_blocks.0._bn2.{key}": torch.ones(16) for key in ("weight", "bias", "running_mean", "running_var")}
    trunk, classifier = fold(state)
    x = torch.randn(1, 3, 9, 9)
    folded = F.conv2d(x, trunk["stem.weight"], trunk["stem.bias"], stride=2)
    torch.testing.assert_close(folded, norm.eval()(convolution(x)))
    assert set(classifier) == {"head.weight", "head.bias", "classifier.weight", "classifier.bias"}


def test_shared_trunk_runs_once_per_tensor():
    class Counting(EfficientNetLite):
        calls = 0

        def forward(self, pixels):
            Counting.calls += 1
            return super().forward(pixels)

    trunk = SharedTrunk(Counting()).eval()
    with torch.no_grad():
        x = torch.rand(1, 3, 32, 32)
        with reuse_features():
            first = trunk(x)
            assert trunk(x) is first
            assert Counting.calls == 1
            trunk(x.clone())
            assert Counting.calls == 2


def test_shared_trunk_keeps_nothing():
    """Features follow in-place changes of weights and pixels; photos are neither kept nor pickled."""
    trunk = SharedTrunk(EfficientNetLite()).eval()
    with torch.no_grad():
        x = torch.rand(1, 3, 32, 32)
        with reuse_features():
            first = trunk(x)
        size = len(pickle.dumps(trunk))
        reference = weakref.ref(x)
        x += 1
        assert not torch.equal(trunk(x)[0], first[0])
        second = trunk(x)[0]
        trunk.trunk.stem.weight.mul_(2)
        assert not torch.equal(trunk(x)[0], second)
        assert len(pickle.dumps(trunk)) == size
    del x
    gc.collect()
    assert reference() is None


def test_threads_do_not_share_features():
    trunk, x = SharedTrunk(EfficientNetLite()).eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad(), reuse_features(), ThreadPoolExecutor(1) as pool:
        first = trunk(x)
        assert pool.submit(trunk, x).result() is not first
