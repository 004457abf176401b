"""Many photos: streams of results in one process, and batches of millions of files. Importing it needs no torch.

``segment_stream`` is for photos that one process segments from beginning to end (``deop segment``): it decodes ahead,
computes photos of one size together, and saves in the background. The rest of the package is ``deop batch``, for inputs
that take hours or days, on disk or in an object store, with results as Parquet files.

**Inputs** (``sources``): a directory, a glob pattern, a text file with one path per line, a column of Parquet files
(paths, or the bytes of image files), or WebDataset's tar files; each on local disk or at an address of fsspec
(``s3://``, ``gs://``, ``az://``, ...).

**Work units** (``plan``): before anything is computed, inputs are listed once and divided into shards: up to 1,000
paths, the rows of one row group of Parquet, or one tar file. The plan is written to ``OUTPUT/_deop/plan.jsonl``, one
line per shard, with an index of byte offsets. The process that drives the batch keeps 16 bytes per shard in memory and
reads a shard's line when the shard is started, so its memory does not depend on the number of photos, and resuming
lists nothing again.

**Output** (``table``, ``storage``): each shard of inputs becomes one file ``OUTPUT/part-000042.parquet`` with one row
per input, in the order of the inputs. It is written beside its place, synchronised and renamed; in an object store it
is one upload, which is atomic there. A file that exists is therefore complete, and the names of the files are the
record of what is done: there is no second record that could disagree with them. A killed batch resumes with the shards
whose files are missing, so each input is in the result exactly once. ``OUTPUT/manifest.json``, written at the end,
lists the files with their numbers of rows and failures.

**Settings** (``settings``): everything that results depend on, with the hash of the model's files and of the
embeddings of the names, is in ``OUTPUT/_deop/settings.json``. The same command resumes; other settings are refused
and the error names them, unless the results are to be deleted (``overwrite``).

**Errors are rows**: a photo that cannot be read has a row with ``error`` and ``error_kind``, and the batch goes on.

**Processes** (``worker``, ``supervisor``): the model runs in worker processes, which are given paths, or the bytes of
photos in tar and Parquet files, and return run-length encoded masks. In a worker, threads read and decode ahead, the
main thread computes, and another one encodes. The supervisor in the parent process knows which photos a worker has
begun and not answered. If the worker crashes, is killed for its memory, or does not answer in time, a new one is
started and these photos are tried again, each alone. A photo that ends a worker while it is alone there has had two
tries and gets a row with an error; all others are answered as usual.

**Engines**: ``local`` (``local_engine``) has one supervisor thread per worker process on one machine. ``ray``
(``ray_engine``) runs the same supervisor in actors of Ray Data, which are given the numbers of unfinished shards only,
write the files themselves, and return numbers. Ray's driver is a process of its own: if no shard is finished for an
hour, it is ended and started again with the shards that are still missing.
"""

from typing import Any

from deop.batch.streaming import Failure, segment_stream, write_behind

__all__ = ["BatchOptions", "Failure", "WorkerOptions", "run_batch", "segment_stream", "write_behind"]


def __getattr__(name: str) -> Any:
    # Imported where they are asked for: `deop segment` does without.
    if name == "run_batch":
        from deop.batch.run import run_batch

        return run_batch
    if name == "BatchOptions":
        from deop.batch.job import BatchOptions

        return BatchOptions
    if name == "WorkerOptions":
        from deop.batch.worker import WorkerOptions

        return WorkerOptions
    raise AttributeError(f"module 'deop.batch' has no attribute {name!r}")
