"""Parts of the benchmark: the machine's peak, and each network by itself in several variants."""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from deop.bench.encoder_speed import MatrixProduct
from deop.bench.timing import Case
from gpu_benchmark.fixed_pass import FixedPass
from gpu_benchmark.report import Row
from gpu_benchmark.session import ENCODER_SHARE, LATENCY, RATE, Session
from gpu_benchmark.timing import Graph, median_seconds
from gpu_benchmark.variants import CuDNNAttention, fold_norms, fused_quick_gelu, mean_cosine, with_activation


def measure_peak(session: Session) -> Iterator[Row]:
    """Matrix products of two shapes, and a copy within the device's memory."""
    torch.manual_seed(session.seed)
    device, dtype, tiny = session.device, session.dtype, session.scale.tiny
    side = 128 if tiny else 8192
    product = MatrixProduct(device, dtype, side)
    seconds = median_seconds({"product": product}, device, repeats=20, seconds=1.0, warm_up=5)["product"]
    session.peak = product.flops / seconds
    yield {"case": f"product {side}^3, {str(dtype)[6:]}", "ms": 1000 * seconds, "TFLOP/s": session.peak / 1e12}
    # The largest product of the encoder at batch 32: tokens x width x hidden.
    rows, width, hidden = (64, 32, 64) if tiny else (32 * 1025, 768, 3072)
    left, right = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((rows, width), (hidden, width)))
    seconds = median_seconds({"linear": lambda: left @ right.T}, device, repeats=20, seconds=0.5, warm_up=5)["linear"]
    rate = 2 * rows * width * hidden / seconds
    yield {
        "case": f"product {rows} x {width} x {hidden}, the encoder's MLP",
        "ms": 1000 * seconds,
        "TFLOP/s": rate / 1e12,
        "share of peak": rate / session.peak,
    }
    source = torch.randn(1 << (16 if tiny else 30), device=device)
    target = torch.empty_like(source)
    seconds = median_seconds({"copy": lambda: target.copy_(source)}, device, repeats=10, seconds=0.5)["copy"]
    yield {"case": "copy, read and written", "ms": 1000 * seconds, "TB/s": 8 * len(source) / seconds / 1e12}


def _add_variants(
    cases: dict[str, Case],
    variants: dict[str, Any],
    create: Callable[[Any], FixedPass],
    run: Callable[[FixedPass], Case],
    output: Callable[[FixedPass], torch.Tensor],
    expected: torch.Tensor,
    device: torch.device,
) -> tuple[dict[str, float], list[str]]:
    """Add a graph of each variant to the cases.

    Returns:
        Cosine similarity of the output of each variant to ``expected``, and errors of variants that do not run here.
    """
    similarities, errors = {}, []
    for name, variant in variants.items():
        try:
            fixed = create(variant)
            similarities[f"graph, {name}"] = mean_cosine(output(fixed), expected)
            cases[f"graph, {name}"] = Graph(run(fixed), device)
        except Exception as error:
            errors.append(f"{name}: {type(error).__name__}: {str(error)[:90]}")
    return similarities, errors


def measure_encoder(session: Session) -> Iterator[Row]:
    """The encoder as it is, as a CUDA graph and with faster parts, relative to the measured peak."""
    model, device, scale = session.model("B/16"), session.device, session.scale
    fused = with_activation(model.encoder, fused_quick_gelu())
    variants = {
        "fused activation": fused,
        "cuDNN attention": CuDNNAttention(model.encoder),
        "both": CuDNNAttention(fused),
    }
    largest: dict[str, float] = {}
    for batch in reversed(scale.batches):
        base = FixedPass(model, scale, batch)
        cases: dict[str, Case] = {"as it is": base.encode, "graph": Graph(base.encode, device)}
        similarities, errors = _add_variants(
            cases,
            variants,
            lambda encoder, batch=batch: FixedPass(model, scale, batch, encoder=encoder),
            lambda fixed: fixed.encode,
            lambda fixed: fixed.encode(),
            base.encode(),
            device,
        )
        yield from ({"case": f"batch {batch}, {error}"} for error in errors)
        durations = median_seconds(cases, device, repeats=20, seconds=1.2)
        for name, seconds in durations.items():
            row = {
                "case": f"batch {batch}, {name}",
                "ms": 1000 * seconds,
                "ms per photo": 1000 * seconds / batch,
                "TFLOP/s": base.flops / seconds / 1e12,
                "share of peak": base.flops / seconds / session.peak,
            }
            yield {**row, "cosine": similarities[name]} if name in similarities else row
            if batch == scale.batches[-1]:
                session.record(ENCODER_SHARE, base.flops / seconds / session.peak, name)
                largest[name] = seconds
        cases.clear()  # frees the graphs
    names = [name for name in variants if f"graph, {name}" in largest]
    fastest = min(names, key=lambda name: largest[f"graph, {name}"], default="")
    if fastest and largest[f"graph, {fastest}"] < largest["graph"]:
        session.encoder_variant = fastest


def measure_proposer(session: Session) -> Iterator[Row]:
    """The proposer's network as it is, with channels-last weights, and with its frozen norms folded."""
    model, device, scale = session.model("B/16"), session.device, session.scale
    proposer: Any = model.proposer
    network = proposer.network.network
    variants = {
        "channels-last weights": copy.deepcopy(network).to(memory_format=torch.channels_last),
        "norms folded": fold_norms(network),
    }
    if device.type == "cuda":
        variants["norms folded, ReLU fused"] = fold_norms(network, fuse_relu=True)
    for batch in reversed(scale.batches):
        base = FixedPass(model, scale, batch)
        cases: dict[str, Case] = {"as it is": base.propose, "graph": Graph(base.propose, device)}
        similarities, errors = _add_variants(
            cases,
            variants,
            lambda network, batch=batch: FixedPass(model, scale, batch, network=network),
            lambda fixed: fixed.propose,
            _network_logits,
            _network_logits(base),
            device,
        )
        yield from ({"case": f"batch {batch}, {error}"} for error in errors)
        durations = median_seconds(cases, device, repeats=15, seconds=1.0)
        for name, seconds in durations.items():
            row = {
                "case": f"batch {batch}, {name}",
                "ms": 1000 * seconds,
                "ms per photo": 1000 * seconds / batch,
                "speed relative to graph": durations["graph"] / seconds,
            }
            yield {**row, "cosine": similarities[name]} if name in similarities else row
        cases.clear()


@torch.inference_mode()
def _network_logits(fixed: FixedPass) -> torch.Tensor:
    """The mask logits of the network itself, which ``FixedPass.propose`` replaces."""
    return fixed.network(fixed.normalize(for_proposer=True)).mask_logits.flatten(2)


def measure_compiled(session: Session) -> Iterator[Row]:
    """The encoder with compiled blocks, also as a CUDA graph."""
    model, device, scale = session.model("B/16"), session.device, session.scale
    encoder = with_activation(model.encoder, fused_quick_gelu())
    for block, original in zip(encoder.blocks[:-1], model.encoder.blocks, strict=False):
        block.activation = original.activation  # the compiler fuses it; the severed block is not compiled
        block.compile(dynamic=False)
    for batch in (scale.batches[-1], 1):
        base, compiled = FixedPass(model, scale, batch), FixedPass(model, scale, batch, encoder=encoder)
        start = time.monotonic()
        similarity = mean_cosine(compiled.encode(), base.encode())
        compilation = time.monotonic() - start
        cases: dict[str, Case] = {
            "graph": Graph(base.encode, device),
            "compiled, graph": Graph(compiled.encode, device),
            "compiled": compiled.encode,
        }
        for name, seconds in median_seconds(cases, device, repeats=15, seconds=1.0).items():
            share = base.flops / seconds / session.peak
            row = {"case": f"batch {batch}, {name}", "ms": 1000 * seconds, "share of peak": share}
            yield {**row, "cosine": similarity, "s to compile": compilation} if "compiled" in name else row
            if batch == scale.batches[-1]:
                session.record(ENCODER_SHARE, share, name)
        whole = median_seconds({"pass": Graph(compiled, device)}, device, repeats=15, seconds=0.6)["pass"]
        yield {"case": f"batch {batch}, pass, compiled, graph", "ms": 1000 * whole, "images/s": batch / whole}
        if batch == scale.batches[-1]:
            session.record(RATE, batch / whole, "encoder compiled, graph")
        if batch == 1:
            session.record(LATENCY, 1000 * whole, "encoder compiled, graph")
