"""Run the steps of the Dockerfile without an engine: ``python .ci/dockerfile.py DIR [ARGUMENT...]``.

The base image is this machine, and DIR stands for the root directory: paths of the Dockerfile that begin with /source,
/opt or /data lie in it. Both stages share DIR, so what ``COPY --from`` copies is in place already. ARGUMENTs go to the
entry point, which runs in the working directory of the last stage as this user; without any, CMD is used. This shows
that the copied files are enough for a build and that the installed command works; it does not show that the base image
has the system libraries.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order: name and the rest of the line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]
    if unknown := {name for name, _ in steps} - KNOWN:
        raise SystemExit(f"this script does not know {', '.join(sorted(unknown))}")
    return steps  # type: ignore[return-value]


def context(folder: Path) -> None:
    """Copy the build context, the files that .dockerignore leaves, to a folder."""
    lines = (REPO / ".dockerignore").read_text(encoding="utf-8").split("\n")
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*", "expected a list of what is kept"
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    left_out = [pattern.removeprefix("**/") for pattern in patterns[1:] if not pattern.startswith("!")]
    for name in kept:
        source, target = REPO / name, folder / name
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=lambda _, names: [n for n in names if any(fnmatch(n, p) for p in left_out)]
            )
        else:
            shutil.copy(source, target)


def main(root: Path, arguments: list[str]) -> int:
    """Run the steps below ``root`` and return the exit code of the entry point."""
    root.mkdir(parents=True)
    files, here = root / "context", root
    files.mkdir()
    context(files)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # the image's `python`

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(source|opt|data)\b", rf"{root}/\1", text)

    entry, default = [], []
    for name, rest in instructions((REPO / "Dockerfile").read_text(encoding="utf-8")):
        print(f"{name} {rest}", flush=True)
        if name == "WORKDIR":
            here = Path(inside(rest))
            here.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and rest.startswith("--from="):
            _, source, target = rest.split()
            assert source == target, "both stages share one directory here"
            assert Path(inside(source)).exists(), source
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                destination = here / target / ("" if (files / source).is_dir() else source)
                if (files / source).is_dir():
                    shutil.copytree(files / source, destination, dirs_exist_ok=True)
                else:
                    shutil.copy(files / source, destination)
        elif name == "RUN":
            subprocess.run(["sh", "-c", inside(rest)], cwd=here, env=environment, check=True)
        elif name == "ENV":
            for key, value in re.findall(r"(\w+)=(\S+)", inside(rest)):
                environment[key] = re.sub(r"\$(\w+)", lambda match: environment.get(match[1], ""), value)
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
        elif name == "CMD":
            default = json.loads(rest)
    command = [shutil.which(entry[0], path=environment["PATH"]) or entry[0], *entry[1:], *(arguments or default)]
    print("$", *command, flush=True)
    return subprocess.run(command, cwd=here, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
