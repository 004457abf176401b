"""Run the steps of the Dockerfile without an engine: ``python .ci/dockerfile.py [--target STAGE] DIR [ARGUMENT...]``.

The base image is this machine, and DIR stands for the root directory: paths of the Dockerfile that begin with /source,
/opt or /data lie in it. STAGE is the last one unless it is given; it and the stages that it is made from share DIR, so
what ``COPY --from`` copies is in place already. ARGUMENTs go to the entry point, which runs in the working directory of
the stage as this user; without any, CMD is used. This shows that the copied files are enough for a build and that the
installed command works; it does not show that the base image has the system libraries.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "ARG", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order: name and the rest of the line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]
    if unknown := {name for name, _ in steps} - KNOWN:
        raise SystemExit(f"this script does not know {', '.join(sorted(unknown))}")
    return steps  # type: ignore[return-value]


def stages(steps: list[tuple[str, str]], target: str | None) -> list[tuple[str, str]]:
    """The instructions of a stage and of those that it is made from, in order.

    Args:
        steps: all instructions.
        target: name of the stage; None: the last one.
    """
    parts: dict[str, list[tuple[str, str]]] = {}
    for name, rest in steps:
        if name == "FROM":
            words = rest.split()
            stage = words[2] if words[1:2] == ["AS"] else ""
            parts[stage] = []
        parts[stage].append((name, rest))
    chosen = [target if target is not None else list(parts)[-1]]
    if chosen[0] not in parts:
        raise SystemExit(f"there is no stage {target}: choose one of {', '.join(filter(None, parts))}")
    for stage in chosen:  # it grows
        for name, rest in parts[stage]:
            source = rest.split()[0].removeprefix("--from=")
            if source in parts and (name == "FROM" or rest.startswith("--from=")):
                chosen.append(source)
    return [step for stage, part in parts.items() if stage in chosen for step in part]


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


def main(root: Path, arguments: list[str], stage: str | None) -> None:
    """Run the steps of a stage below ``root``, and become the entry point."""
    root.mkdir(parents=True)
    files, here = root / "context", root
    files.mkdir()
    context(files)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # the image's `python`

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(source|opt|data)\b", rf"{root}/\1", text)

    entry, default = [], []
    for name, rest in stages(instructions((REPO / "Dockerfile").read_text(encoding="utf-8")), stage):
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
        elif name == "ARG":
            key, _, default_value = rest.partition("=")
            environment.setdefault(key, default_value)
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
        elif name == "CMD":
            default = json.loads(rest)
    command = [shutil.which(entry[0], path=environment["PATH"]) or entry[0], *entry[1:], *(arguments or default)]
    print("$", *command, flush=True)
    os.chdir(here)
    os.execve(command[0], command, environment)  # signals then reach it, as in a container


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", metavar="STAGE")
    parser.add_argument("root", metavar="DIR", type=Path)
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    main(given.root.resolve(), given.arguments, given.target)
