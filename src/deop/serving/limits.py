"""What a server accepts, and the problem that it answers with when a request exceeds a limit."""

from dataclasses import dataclass, fields

from deop.errors import SettingError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        bytes: size of the body of a request.
        pixels: pixels of a photo.
        names: class names of a question, with synonyms and background names.
        characters: characters of one name, with its synonyms.
        seconds: longest time that a request may wait and be computed; then it is answered with 503.
        upload_seconds: longest time to receive a body.
        send_seconds: longest time in which a client may take no part of its answer.
        head_seconds: longest time to receive the head of a request, and for a new connection to begin one.
        idle_seconds: a connection is closed when it has made no request for this long.
        connections: open connections; for more, the one that has been idle longest is closed.
        requests: requests that may be received, wait and be computed at the same time; more are answered with 429.
        worker_bytes: memory of each worker (Linux); a photo that needs more is refused. None: no limit.
        cache_bytes: memory of encoded photos, for each worker.
        cache_seconds: an encoded photo is forgotten when it has not been used for this long.
        banks: banks of examples of each token; for more, the one that was used longest ago is forgotten.
        bank_bytes: memory of all banks of a token.
        bank_regions: regions in a bank.
        bank_seconds: a bank is forgotten when it has not been used for this long.
        examples: marked regions in one request.

    Raises:
        SettingError: a limit that is not above 0.
    """

    bytes: int = 64 * MEGABYTE
    pixels: int = 100_000_000
    names: int = 1000
    characters: int = 1000
    seconds: float = 60.0
    upload_seconds: float = 30.0
    send_seconds: float = 60.0
    head_seconds: float = 10.0
    idle_seconds: float = 30.0
    connections: int = 1000
    requests: int = 32
    worker_bytes: int | None = None
    cache_bytes: int = 1000 * MEGABYTE
    cache_seconds: float = 600.0
    banks: int = 100
    bank_bytes: int = 200 * MEGABYTE
    bank_regions: int = 20_000
    bank_seconds: float = 86_400.0
    examples: int = 200

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise SettingError(f"the limit {field.name} must be above 0, not {value}")

    @property
    def question_bytes(self) -> int:
        """Size of a body that has names and no photo. The process that accepts requests reads its ``id``."""
        return min(self.bytes, MEGABYTE + 64 * self.names)

    @property
    def examples_bytes(self) -> int:
        """Size of a body with marked regions of an encoded photo, of which the accepting process reads the ``id``."""
        return min(self.bytes, 4 * MEGABYTE)
