"""Many photos: decoding ahead, batches of one size, saving in the background; importing it needs no torch."""

from deop.batch.streaming import Failure, segment_stream, write_behind

__all__ = ["Failure", "segment_stream", "write_behind"]
