"""Parts of the benchmark: the whole pass and its stages, L/14, kernels, and two streams."""

from collections.abc import Iterator
from typing import Any

import torch

from deop.bench.subjects import distinct_names
from deop.bench.timing import Case
from deop.proposals.types import Proposals
from deop.regions.encoding import encode_two_stream
from deop.regions.two_stream import TwoStream, crop_proposals, encode_crops
from gpu_benchmark.fixed_pass import FixedPass
from gpu_benchmark.report import Row
from gpu_benchmark.session import LATENCY, RATE, TWO_STREAM_RATIO, Session
from gpu_benchmark.timing import Graph, median_seconds, profile_kernels


def measure_pass(session: Session) -> Iterator[Row]:
    """Whole passes and their stages, as they are and as CUDA graphs."""
    model, device, scale = session.model("B/16"), session.device, session.scale
    for batch in reversed(scale.batches):
        session.peak_memory()
        base = FixedPass(model, scale, batch)
        base()
        memory = session.peak_memory()
        cases: dict[str, Case] = {"as it is": base, "graph": Graph(base, device)}
        try:
            fast = session.fastest_pass(model, batch)
            fast()
            cases[f"graph, {session.encoder_variant or 'encoder as it is'}, norms folded"] = Graph(fast, device)
        except Exception as error:
            yield {"case": f"batch {batch}, faster variants: {type(error).__name__}: {str(error)[:90]}"}
        for name, seconds in median_seconds(cases, device, repeats=20, seconds=1.5).items():
            row = {
                "case": f"batch {batch}, {name}",
                "ms": 1000 * seconds,
                "images/s": batch / seconds,
                "share of peak, encoder's products": base.flops / seconds / session.peak,
            }
            yield {**row, **memory} if name == "as it is" else row
            if batch == scale.batches[-1]:
                session.record(RATE, batch / seconds, name)
            if batch == 1:
                session.record(LATENCY, 1000 * seconds, name)
        cases.clear()  # frees the graphs
        yield from _stages(session, base)


def _stages(session: Session, base: FixedPass) -> Iterator[Row]:
    """Each stage of a pass by itself, as it is and as a CUDA graph."""
    features = base.encode().clone()
    regions = base.embed(features).clone()
    votes = base.classify(regions).clone()
    stages: dict[str, Case] = {
        "normalize, for both networks": lambda: (base.normalize(), base.normalize(for_proposer=True)),
        "proposer": base.propose,
        "encoder": base.encode,
        "regions": lambda: base.embed(features),
        "classify": lambda: base.classify(regions),
        "assemble": lambda: base.assemble(votes),
    }
    graphs: dict[str, Case] = {f"{name} (graph)": Graph(stage, session.device) for name, stage in stages.items()}
    seconds = median_seconds({**stages, **graphs}, session.device, repeats=10, seconds=1.0)
    for name in stages:
        row = {"case": f"batch {base.batch}: {name}", "ms": 1000 * seconds[name]}
        yield {**row, "ms (graph)": 1000 * seconds[f"{name} (graph)"]}


def measure_large(session: Session) -> Iterator[Row]:
    """The encoder and the whole pass of L/14 as CUDA graphs."""
    model, device, scale = session.model("L/14"), session.device, session.scale
    for batch in reversed(scale.batches):
        base, fast = FixedPass(model, scale, batch), session.fastest_pass(model, batch)
        cases: dict[str, Case] = {
            "encoder, graph": Graph(base.encode, device),
            f"encoder, graph, {session.encoder_variant or 'as it is'}": Graph(fast.encode, device),
            "pass, as it is": base,
            "pass, graph": Graph(base, device),
            "pass, graph, faster variants": Graph(fast, device),
        }
        for name, seconds in median_seconds(cases, device, repeats=8, seconds=1.2).items():
            yield {
                "case": f"batch {batch}, {name}",
                "ms": 1000 * seconds,
                "images/s": batch / seconds,
                "share of peak, encoder's products": base.flops / seconds / session.peak,
            }
        cases.clear()


def measure_kernels(session: Session) -> Iterator[Row]:
    """Kernels and driver calls of a pass, at the largest batch and at batch 1."""
    model, scale = session.model("B/16"), session.scale
    for batch in (scale.batches[-1], 1):
        yield {"case": f"batch {batch}", **profile_kernels(FixedPass(model, scale, batch), session.device)}


def measure_two_stream(session: Session) -> Iterator[Row]:
    """One pass and two streams, from a photo and its masks to class probabilities.

    Two streams encode one photo at a time, all of its crops together. One pass encodes one photo at a time, or as many
    as the second batch size; two streams are not measured with several photos.
    """
    model, device, scale = session.model("B/16"), session.device, session.scale
    one = FixedPass(model, scale, 1)
    photo = one.photos[0].cpu().numpy()
    proposals = [Proposals(one.masks[0], torch.arange(scale.masks))]
    stream = TwoStream(batch=scale.masks)

    @torch.inference_mode()
    def two_streams() -> Any:
        encoded = encode_two_stream(model.encoder, [photo], [one.canvas], proposals, stream, model.device, model.dtype)
        return one.classify(encoded[0].regions)

    # The fastest form of two streams: crops are cut as they are, and encoded in a graph.
    image, masks = one.photos[0].permute(2, 0, 1), one.masks[0].repeat_interleave(4, 1).repeat_interleave(4, 2) / 12
    side = model.encoder.crop_side

    @torch.inference_mode()
    def cut_crops() -> torch.Tensor:
        return crop_proposals(image, masks, model.encoder.normalization, side=side, threshold=0.0).pixels.to(
            model.dtype
        )

    crops = cut_crops().clone()
    encode_graph = Graph(lambda: one.classify(encode_crops(model.encoder, crops, len(crops))), device)

    @torch.inference_mode()
    def two_streams_graph() -> Any:
        crops.copy_(cut_crops())
        return encode_graph()

    many = FixedPass(model, scale, scale.batches[1])
    batched = f"one pass, graph, batch {many.batch}"
    cases: dict[str, Case] = {
        "one pass": one.classify_photos,
        "one pass, graph": Graph(one.classify_photos, device),
        batched: Graph(many.classify_photos, device),
        "two streams": two_streams,
        "two streams, crops encoded in a graph": two_streams_graph,
        "two streams, graph, without cutting": encode_graph,
    }
    seconds = median_seconds(cases, device, repeats=15, seconds=2.5)
    seconds[batched] /= many.batch
    for name in cases:
        row: Row = {"case": f"{name}, per photo", "ms": 1000 * seconds[name]}
        for other in ("two streams", "two streams, crops encoded in a graph", "two streams, graph, without cutting"):
            row[f"ratio: {other}"] = seconds[other] / seconds[name] if name.startswith("one") else ""
        yield row
    for name, other in (("one pass", "two streams"), ("one pass, graph", "two streams, crops encoded in a graph")):
        session.record(TWO_STREAM_RATIO, seconds[other] / seconds[name], f"{other} / {name}")

    vocabulary = model.vocabulary(distinct_names(scale.names))
    segment: dict[str, Case] = {
        classifier: lambda classifier=classifier: model.segment(photo, vocabulary, classifier=classifier)
        for classifier in ("one-pass", "two-stream")
    }
    seconds = median_seconds(segment, device, repeats=10, seconds=1.5)
    ratio = seconds["two-stream"] / seconds["one-pass"]
    yield {"case": "DeOP.segment, one pass", "ms": 1000 * seconds["one-pass"], "ratio: two streams": ratio}
