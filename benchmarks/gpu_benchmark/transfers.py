"""A part of the benchmark: copying photos to the device and label maps from it, during the work on other photos."""

from collections.abc import Iterator

import torch

from deop.bench.timing import Case
from gpu_benchmark.fixed_pass import FixedPass
from gpu_benchmark.report import Row
from gpu_benchmark.session import Session
from gpu_benchmark.timing import Graph, median_seconds


def measure_transfers(session: Session) -> Iterator[Row]:
    """Batches of the largest size and single photos, with transfers before and after each pass and during passes."""
    yield from _transfers(session, session.scale.batches[-1], 6)
    yield from _transfers(session, 1, 1)


def _transfers(session: Session, batch: int, rounds: int) -> Iterator[Row]:
    fixed = FixedPass(session.model("B/16"), session.scale, batch)
    graph, on_gpu = Graph(fixed, session.device), session.device.type == "cuda"
    shape = fixed.photos.shape
    pinned = [torch.randint(0, 256, shape, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
    results = [torch.empty(batch, *fixed.size, dtype=torch.int32, pin_memory=on_gpu) for _ in range(2)]
    pageable = [photos.clone() for photos in pinned]

    def sequential(photos: list[torch.Tensor]) -> None:
        for index in range(rounds):
            fixed.photos.copy_(photos[index % 2])
            labels, _ = graph()
            labels.cpu()

    def without() -> None:
        for _ in range(rounds):
            graph()

    cases: dict[str, Case] = {
        "no transfers": without,
        "sequential, pageable memory": lambda: sequential(pageable),
        "sequential, pinned memory": lambda: sequential(pinned),
    }
    if on_gpu and rounds > 1:
        cases["overlapped, pinned memory"] = OverlappedTransfers(fixed, graph, pinned, results, rounds)
    repeats = 6 if rounds > 1 else 20
    durations = median_seconds(cases, session.device, repeats=repeats, seconds=2.5, warm_up=1)
    for name, seconds in durations.items():
        yield {
            "case": f"batch {batch}, {name}",
            "ms per batch": 1000 * seconds / rounds,
            "images/s": rounds * batch / seconds,
            "relative to no transfers": durations["no transfers"] / seconds,
        }


class OverlappedTransfers:
    """Passes over batches whose photos and labels are copied on two further CUDA streams.

    Args:
        fixed: the pass.
        graph: the same pass as a CUDA graph.
        photos: two batches (B, H, W, 3) uint8 in pinned memory, used in turn.
        results: two buffers (B, H, W) int32 in pinned memory for the labels, used in turn.
        rounds: number of batches.
    """

    def __init__(
        self, fixed: FixedPass, graph: Graph, photos: list[torch.Tensor], results: list[torch.Tensor], rounds: int
    ) -> None:
        self.fixed, self.graph, self.photos, self.results, self.rounds = fixed, graph, photos, results, rounds
        self.upload, self.download = torch.cuda.Stream(), torch.cuda.Stream()
        self.uploaded = [torch.empty_like(fixed.photos) for _ in range(2)]
        self.labels = [torch.empty(part.shape, dtype=part.dtype, device=fixed.photos.device) for part in results]
        events = ("photos uploaded", "photos used", "labels computed", "labels downloaded")
        self.events = {name: [torch.cuda.Event() for _ in range(2)] for name in events}

    def __call__(self) -> None:
        """Run all rounds; when the current stream has finished, so have the copies."""
        main, events = torch.cuda.current_stream(), self.events
        self.upload.wait_stream(main)
        for index in range(self.rounds):
            slot = index % 2
            with torch.cuda.stream(self.upload):
                self.upload.wait_event(events["photos used"][slot])
                self.uploaded[slot].copy_(self.photos[slot], non_blocking=True)
                events["photos uploaded"][slot].record(self.upload)
            main.wait_event(events["photos uploaded"][slot])
            self.fixed.photos.copy_(self.uploaded[slot])
            events["photos used"][slot].record(main)
            labels, _ = self.graph()
            main.wait_event(events["labels downloaded"][slot])
            self.labels[slot].copy_(labels)
            events["labels computed"][slot].record(main)
            with torch.cuda.stream(self.download):
                self.download.wait_event(events["labels computed"][slot])
                self.results[slot].copy_(self.labels[slot], non_blocking=True)
                events["labels downloaded"][slot].record(self.download)
        main.wait_stream(self.download)
