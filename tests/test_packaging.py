"""The container file, the workflows and the contents of the archives agree with the project."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def instructions(name):
    """The arguments of every instruction of the Dockerfile with a name."""
    return re.findall(rf"^{name} +(.*)$", re.sub(r"\\\n\s*", "", read("Dockerfile")), re.MULTILINE)


def test_the_image_copies_what_a_build_needs():
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    kept = set(re.findall(r"^!(.+)$", read(".dockerignore"), re.MULTILINE))
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    project = PROJECT["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src", "constraints.txt", "locks"} == copied


def test_the_images_run_as_a_user_without_privileges():
    """Two images: the base install, and that with the server."""
    users = [line.split(":")[0] for line in instructions("USER")]
    assert len(users) == 2
    assert all(user.isdecimal() and int(user) > 0 for user in users)
    assert instructions("ENTRYPOINT") == ['["deop"]'] * 2
    assert instructions("ARG") == ["EXTRAS=serve"]


def test_the_images_install_nothing_without_a_hash():
    """Except the wheel that was built from the sources, and further extras, which the lock does not have."""
    commands = [part for run in instructions("RUN") for part in run.split("&& ") if "pip" in part and "install" in part]
    *locked, last = commands
    assert [re.search(r"-r (\S+)", command)[1] for command in locked if "-r" in command] == [
        f"locks/{name}.txt" for name in ("build", "base", "serve")
    ]
    for command in locked:
        assert "--require-hashes" in command or "--no-deps /source/dist/*.whl" in command
    assert last.endswith('-c constraints.txt "$(ls /source/dist/*.whl)[$EXTRAS]"')


def test_the_python_of_the_image_is_supported():
    versions = {match for line in instructions("FROM") for match in re.findall(r"python:(3\.\d+)-slim", line)}
    assert len(versions) == 1
    assert f"Programming Language :: Python :: {versions.pop()}" in PROJECT["project"]["classifiers"]


def test_workflows_are_well_formed_and_grant_little():
    assert {path.name for path in WORKFLOWS} == {"audit.yml", "ci.yml", "publish.yml"}
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert "timeout-minutes" in job, name
            for step in job["steps"]:
                assert ("uses" in step) != ("run" in step)
                # A tag can be moved to other code, a commit cannot.
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}")), step
                if step.get("uses", "").startswith("actions/checkout"):
                    assert step["with"]["persist-credentials"] is False


def test_the_workflow_of_ci_calls_the_script():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert [step["run"] for step in jobs["everything"]["steps"] if "run" in step] == ["bash .ci/run"]


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ("true", 0),
        ("true & wait $!", 0),
        ("sleep 60 &", 0),
        ("exit 3", 3),
        ("sleep 60 & exit 3", 3),
        ("false", 1),
        ('rm -r "$work"', 0),
    ],
)
def test_the_script_of_ci_ends_with_the_status_of_its_checks(tmp_path, steps, status):
    """Whatever runs beside them is ended, and nothing is left behind."""
    (cleaning,) = re.findall(r"^trap .* EXIT$", read(".ci/run"), re.MULTILINE)
    script = f"set -euo pipefail\nwork=$(mktemp -d)\n{cleaning}\n{steps}\n"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == status
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_publishing_needs_a_tag_and_a_setting_and_stores_no_password():
    text = read(".github/workflows/publish.yml")
    jobs = yaml.safe_load(text)["jobs"]
    publish = jobs["publish"]
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v') && vars.PUBLISH == 'true'"
    assert publish["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]
    assert "secrets." not in text
    assert "password" not in " ".join(str(step.get("with", {})) for step in publish["steps"])
    for name in ("attest", "release"):
        assert jobs[name]["if"] == publish["if"]


def test_what_is_published_was_signed_before():
    jobs = yaml.safe_load(read(".github/workflows/publish.yml"))["jobs"]
    assert jobs["attest"]["permissions"] == {"id-token": "write", "attestations": "write"}
    signed = [step["uses"].split("@")[0] for step in jobs["attest"]["steps"] if "attest" in step["uses"]]
    assert signed == ["actions/attest-build-provenance", "actions/attest-sbom"]
    assert "attest" in jobs["publish"]["needs"]
    assert jobs["release"]["needs"] == "publish"
    assert jobs["release"]["permissions"] == {"contents": "write"}


def test_the_version_that_a_tag_is_compared_with(tmp_path):
    """The command of the workflow finds the version in its file."""
    import deop

    (line,) = re.findall(r"sed -n '(.*?)' src", read(".github/workflows/publish.yml"))
    found = subprocess.run(["sed", "-n", line, ROOT / "src/deop/_version.py"], capture_output=True, encoding="utf-8")
    assert found.stdout.strip() == deop.__version__


def test_the_check_of_the_archives_finds_a_missing_file(tmp_path):
    """With an archive that lacks a file; .ci/run checks those that are built."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "deop-0-py3-none-any.whl", "w") as archive:
        archive.write(ROOT / "src" / "deop" / "zoo.py", "deop/zoo.py")
    command = [sys.executable, ROOT / ".ci" / "check_package.py", tmp_path]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert process.returncode
    assert "deop/model.py" in process.stderr
