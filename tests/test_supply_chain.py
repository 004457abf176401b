"""What deop is built from: locked libraries, their licences, the same wheel from the same sources, no secrets."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_releases import pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {path.stem: path for path in sorted((ROOT / "locks").glob("*.txt"))}
EXTRAS = {"base": set(), "serve": {"serve"}, "dev": {"dev", "train", "video", "tiff", "geo"}}
ELSEWHERE = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")
"""Not in a lock: torch and what its builds for CUDA need (.ci/lock says why)."""


def locked(name: str) -> dict[str, set[str]]:
    """Library -> its releases in a lock: one, or one for each of several versions of Python."""
    releases: dict[str, set[str]] = {}
    for library, release in re.findall(r"^([\w.-]+)==(\S+) ", LOCKS[name].read_text(encoding="utf-8"), re.MULTILINE):
        releases.setdefault(canonicalize_name(library), set()).add(release)
    return releases


def needed(extras: set[str]) -> Iterator[Requirement]:
    """The libraries that pyproject.toml names for the base install and some extras."""
    lines = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        lines += PROJECT["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if requirement.name == "deop":
            yield from needed(requirement.extras)
        else:
            yield requirement


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_a_release_and_hashes_of_every_library(name):
    text = LOCKS[name].read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\w)", text)[1:]
    assert len(entries) >= 5
    for entry in entries:
        first, *rest = entry.splitlines()
        assert re.fullmatch(r"[\w.-]+==[\w.]+ (; .*)?\\", first), first
        assert re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", rest[0]), entry
    assert "://" not in text, "libraries come from the index that the machine is set up for"
    assert not [library for library in locked(name) if ELSEWHERE.fullmatch(library)]


@pytest.mark.parametrize("name", EXTRAS)
def test_locks_have_what_pyproject_asks_for(name):
    entries = locked(name)
    for requirement in needed(EXTRAS[name]):
        if requirement.name != "torch":
            releases = entries[canonicalize_name(requirement.name)]
            assert all(map(requirement.specifier.contains, releases)), f"{requirement}, but {releases}: run .ci/lock"


@pytest.mark.parametrize("name", LOCKS)
def test_locks_agree_with_the_constraints(name):
    constraints = {
        canonicalize_name(library): release.split()[0] for library, release in pins("constraints.txt").items()
    }
    entries = locked(name)
    for library in constraints.keys() & entries.keys():
        assert entries[library] == {constraints[library]}, f"{library}: run .ci/lock"


@pytest.mark.parametrize("name", EXTRAS)
def test_locks_can_be_installed_without_further_libraries(name):
    """What the metadata of the installed libraries asks for is in the lock."""
    entries = locked(name)
    waiting, seen = [(requirement.name, requirement.extras) for requirement in needed(EXTRAS[name])], set()
    while waiting:
        library, extras = waiting.pop()
        if (library, *sorted(extras)) in seen or ELSEWHERE.fullmatch(canonicalize_name(library)):
            continue
        seen.add((library, *sorted(extras)))
        assert canonicalize_name(library) in entries, f"{library}: run .ci/lock"
        try:
            lines = metadata.requires(library) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            markers = [{"extra": extra} for extra in (*extras, "")]
            if requirement.marker is None or any(requirement.marker.evaluate(marker) for marker in markers):
                waiting.append((requirement.name, requirement.extras))
    assert len(seen) >= len(PROJECT["project"]["dependencies"])


def test_licences_that_ask_for_the_source_of_users_are_not_listed():
    settings = PROJECT["tool"]["pip-licenses"]
    allowed = [licence.strip() for licence in re.split(r";\s*", settings["allow-only"])]
    assert len(allowed) > 20
    assert not [licence for licence in allowed if re.search("GPL|General Public|SSPL|BUSL|NC|Proprietary", licence)]
    ignored = set(settings["ignore-packages"])
    assert ignored == {"codespell", "atheris"}  # tools of contributors, in no extra that users install
    for extra in PROJECT["project"]["optional-dependencies"].keys() - {"dev", "fuzz"}:
        assert not ignored & {requirement.name for requirement in needed({extra})}


def test_libraries_of_the_page_are_locked_and_may_be_used():
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    allowed = {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BlueOak-1.0.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MPL-2.0",
    }
    assert len(packages) > 3
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-"), name
            assert package["license"] in allowed, name


def test_updates_are_proposed_for_everything_that_is_locked():
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "npm", "docker", "github-actions"}
    for update in updates:
        assert update["cooldown"]["default-days"] >= 7
        for folder in update.get("directories", [update.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir()


def test_the_audit_fails_where_advisories_cannot_be_had():
    """Without --strict, pip-audit passes on an index that has none."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "audit.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for step in jobs["libraries"]["steps"] if step.get("run", "").startswith("pip-audit")]
    assert {command.split()[-1] for command in commands} == {"locks/serve.txt", "locks/dev.txt"}
    assert all("--strict" in command.split() for command in commands)


def build(folder: Path, output: Path, mask: int) -> bytes:
    """Build the wheel of a copy of the sources, with other permissions and times of files."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(
        ROOT / "src", folder / "src", copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in folder.rglob("*"):
        os.utime(path, (mask * 1e6, mask * 1e6))
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    environment = {name: value for name, value in os.environ.items() if name not in ("SOURCE_DATE_EPOCH", "PYTHONPATH")}
    command = [sys.executable, "-c", code, output]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, umask=mask)
    (wheel,) = output.glob("*.whl")
    return wheel.read_bytes()


def test_a_second_wheel_has_the_same_bytes(tmp_path):
    """From another folder, with other times and permissions."""
    wheels = []
    for mask in (0o022, 0o077):
        folder = tmp_path / f"copy-{mask}"
        folder.mkdir()
        wheels.append(build(folder, tmp_path / f"wheel-{mask}", mask))
    assert wheels[0] == wheels[1]


def history(folder: Path, *texts: str) -> Path:
    """A repository whose only file had these texts, one commit each."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for number, text in enumerate(texts):
        (folder / "notes.txt").write_text(text, encoding="utf-8")
        subprocess.run([*git, "add", "notes.txt"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", f"Change {number}"], check=True)
    return folder


def search(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run .ci/secrets.py on a repository."""
    command = [sys.executable, ROOT / ".ci" / "secrets.py", folder]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("-----BEGIN OPENSSH PRIVATE" + " KEY-----", "a private key"),
        ("gh" + "p_" + "a1B2" * 9, "a token of GitHub"),
        ("AKIA" + "ABCDEFGH12345678", "a key of AWS"),
        ("hf" + "_" + "abcDEF" * 5 + "abcd", "a token of Hugging Face"),
        ("postgres://deop:" + "correct-horse@db.internal/deop", "a password in an address"),
    ],
)
def test_a_secret_that_was_deleted_is_found_in_the_history(tmp_path, secret, kind):
    found = search(history(tmp_path, "nothing\n", f"key = {secret}\n", "nothing\n"))
    assert found.returncode
    assert f"notes.txt: {kind}" in found.stdout
    assert secret not in found.stdout + found.stderr


def test_a_history_without_secrets_passes(tmp_path):
    found = search(history(tmp_path, "token = $DEOP_TOKEN\n", "see https://user:secret@example.org\n"))
    assert (found.returncode, found.stdout) == (0, "")
