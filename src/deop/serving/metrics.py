"""What ``/metrics`` shows: counters of requests, times, the queue and the cache, for Prometheus."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server, in a registry of its own. No label contains anything that a client has sent."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self._registry, "namespace": "deop"}
        self.requests = Counter("requests", "Requests that were answered.", ("method", "path", "status"), **options)
        self.seconds = Histogram(
            "request_seconds",
            "Seconds from the head of a request to its answer.",
            ("path",),
            buckets=_SECONDS,
            **options,
        )
        self.refusals = Counter("refusals", "Requests refused because of a limit.", ("limit",), **options)
        self.cancelled = Counter("cancelled", "Requests whose client closed the connection.", **options)
        self.closed = Counter("connections_closed", "Connections closed because of a limit.", ("limit",), **options)
        self.connections = Gauge("connections", "Open connections.", **options)
        self.in_progress = Gauge("requests_in_progress", "Requests being received, waiting or computed.", **options)
        self.waiting = Gauge("queue_length", "Requests that wait for a worker.", **options)
        self.wait_seconds = Histogram(
            "queue_seconds", "Seconds that requests waited for a worker.", buckets=_SECONDS, **options
        )
        self.batch_size = Histogram(
            "batch_size", "Requests that a worker took together.", buckets=(1, 2, 4, 8, 16, 32), **options
        )
        self.workers_lost = Counter("workers_lost", "Worker processes that ended unexpectedly.", **options)
        self.log_lines_lost = Counter("log_lines_lost", "Lines of the log that could not be written.", **options)
        self._photos = Gauge("cached_photos", "Encoded photos in memory.", ("worker",), **options)
        self._bytes = Gauge("cached_bytes", "Memory of encoded photos.", ("worker",), **options)

        self.banks = Gauge("banks", "Banks of examples in memory.", **options)
        self.bank_bytes = Gauge("bank_bytes", "Memory of banks of examples.", **options)

    def cache(self, worker: int, photos: int, size: int) -> None:
        """Record the state of a worker's cache."""
        self._photos.labels(str(worker)).set(photos)
        self._bytes.labels(str(worker)).set(size)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
