"""deop and CLIPSeg at equal size: the same tower, CLIP B/16, sees the photo once in both."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from deop.bench.subjects import BenchOptions, RandomCLIPSeg, RealisticProposer, clip_model, distinct_names
from deop.bench.tables import Measurement, Row, compare
from deop.bench.timing import Case, time_alternately
from deop.images.preprocessing import Normalization
from deop.model import DeOP
from deop.proposals.resnet import FrozenBatchNorm, NormedConv
from deop.proposals.types import Proposals
from deop.protocols import Proposer

SIDE = 352
"""Side of the input in pixels, CLIPSeg's native one."""
SMALLER = 256
"""Side of the proposer's input where it is smaller than the encoder's."""
GOALS = {2: 0.6, 20: 1.3, 150: 5.0}
"""Minimum ratio of CLIPSeg to deop, by number of names."""
STEP = 32
"""The sides of a proposer's input are multiples of this."""


class SmallerProposals(nn.Module):
    """A proposer whose input has a lower resolution than the encoder's. Its masks still cover the whole input.

    Not an option of the package: how much accuracy it costs is only known for trained weights.

    Args:
        proposer: the proposer, a module.
        side: side of its input in pixels for a photo of ``SIDE`` pixels.
    """

    def __init__(self, proposer: nn.Module, side: int = SMALLER) -> None:
        super().__init__()
        self.proposer, self.side = proposer, side
        self.normalization: Normalization = proposer.normalization  # type: ignore[assignment]

    def forward(self, pixels: Tensor) -> list[Proposals]:
        """The proposals of the resized pixels (B, 3, H, W)."""
        # Rounded to the nearest multiple in integers, since graphs cannot round other numbers.
        rows, columns = ((side * self.side // SIDE + STEP // 2) // STEP * STEP for side in pixels.shape[-2:])
        result: list[Proposals] = self.proposer(F.interpolate(pixels, size=(rows, columns), mode="bilinear"))
        return result


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy of a network whose frozen norms are part of the convolutions before them."""
    folded = copy.deepcopy(module)
    for layer in folded.modules():
        if isinstance(layer, NormedConv) and isinstance(norm := layer.norm, FrozenBatchNorm):
            weight, bias = fuse_conv_bn_weights(
                layer.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            layer.conv.weight, layer.conv.bias, layer.norm = weight, bias, nn.Identity()
    return folded


def race_model(options: BenchOptions, change: Callable[[Any], Any] = lambda proposer: proposer) -> DeOP:
    """deop with B/16 at ``SIDE`` pixels and R50; ``change`` makes the proposer from the usual one."""
    model = clip_model("B/16", side=SIDE, seed=options.seed)
    proposer: Proposer = change(model.proposer)
    model.set_proposer(proposer)
    return model.to(options.device, options.dtype).eval()


def measure_race(options: BenchOptions) -> Measurement:
    """deop in several variants and CLIPSeg, which encodes the photo once and the prompts in advance."""
    with TemporaryDirectory(prefix="deop-bench-") as folder:
        models: dict[str, Any] = {
            "as loaded": race_model(options),
            "norms folded": race_model(options, fold_norms),
            f"proposals at {SMALLER}": race_model(options, SmallerProposals),
        }
        if options.device.type == "cpu" and not options.quick:
            models |= _exported(options, Path(folder))
        clipseg = RandomCLIPSeg(options.device, options.dtype, options.seed)
        rows: list[Row] = []
        for count in options.shorten((2, 20, 150)):
            cases: dict[str, Case] = {
                label: partial(model.segment, options.photo, model.vocabulary(distinct_names(count)))
                for label, model in models.items()
            }
            cases["CLIPSeg"] = partial(clipseg.once, options.photo, count)
            repeats = options.repeats if count < 100 else options.few_repeats
            times = time_alternately(cases, repeats, options.device)
            theirs = count_flops(cases["CLIPSeg"]) / 1e9
            for label, model in models.items():
                figures = {"CLIPSeg's GFLOP": theirs}
                if isinstance(model, DeOP):
                    figures["GFLOP"] = count_flops(cases[label]) / 1e9
                goal = GOALS.get(count)
                row = compare(f"{count} names, {label}", times[label], times["CLIPSeg"], "CLIPSeg", goal, **figures)
                rows.append(row)
    return Measurement(
        "race",
        f"deop and CLIPSeg at equal size: B/16 at {SIDE}, 100 masks of R50; both encode the photo once",
        tuple(rows),
        "Photo to label map at its own size, names embedded in advance. GFLOP: matrix products and convolutions, two "
        "operations per multiply-add; the light engine computes the same as its torch counterpart.",
    )


def _exported(options: BenchOptions, folder: Path) -> dict[str, Any]:
    """The same models in ONNX Runtime."""
    from deop.export.folder import export_model
    from deop.zoo import load

    variants: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "ONNX": ("float32", lambda proposer: proposer),
        "ONNX int8": ("int8", lambda proposer: proposer),
        f"ONNX int8, proposals at {SMALLER}": ("int8", SmallerProposals),
    }
    models = {}
    names = distinct_names(max(GOALS))
    for number, (label, (precision, change)) in enumerate(variants.items()):
        place = folder / str(number)
        model = race_model(options, partial(_of_network, change))
        export_model(model.float(), place, precision=precision, names=names, calibrate=[options.photo])
        exported = load(place, engine="onnx", dtype=precision, device="cpu", threads=torch.get_num_threads())
        exported.cache = None
        models[label] = exported
    return models


def _of_network(change: Callable[[Any], Any], proposer: RealisticProposer) -> Any:
    """Change the network alone: a graph cannot hold the masks that replace its own for every size of photo."""
    return change(proposer.network)


class _Operations(TorchDispatchMode):
    """Counts operations. torch's ``FlopCounterMode`` does the same, but fails with modules in inference mode."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function._overloadpacket not in flop_registry:
            with self:  # operations that consist of others, such as linear layers
                result = function.decompose(*arguments, **options)
            if result is not NotImplemented:
                return result
        result = function(*arguments, **options)
        if count := flop_registry.get(function._overloadpacket):
            self.total += count(*arguments, **options, out_val=result)
        return result


def count_flops(case: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions of a case, two per multiply-add."""
    # The products of attention are only visible without its fused kernel.
    with sdpa_kernel(SDPBackend.MATH), _Operations() as operations:
        case()
    return operations.total
