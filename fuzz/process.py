"""One target in a process of its own, with limits: ``python -m fuzz.process TARGET FOUND CORPUS... [FLAGS]``."""

import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

from fuzz.target import MEMORY_LIMIT, check, place_of, save
from fuzz.targets import load


def main(arguments: list[str]) -> None:
    """Run one target until libFuzzer's limits end it."""
    name, found, *rest = arguments
    with atheris.instrument_imports(include=["deop"]):
        target = load(name)
    known: set[str] = set()
    # A hard limit, beyond which allocations fail; libFuzzer ends the process where it uses more than MEMORY_LIMIT.
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_LIMIT << 20, resource.RLIM_INFINITY))
    with TemporaryDirectory(prefix="deop-fuzz-") as folder:

        def one_input(data: bytes) -> None:
            error = check(target, data, Path(folder))
            if error is not None and place_of(error) not in known:
                known.add(place_of(error))
                print(f"found: {place_of(error)}: {save(data, error, Path(found) / name)}", flush=True)

        atheris.Setup([sys.argv[0], *rest], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
