"""The code blocks of README and docs are run.

* Python blocks and ``deop`` commands run in a directory that holds the files they name. Model names stand for small
  random models in the hub's cache, in the layout of the real ones.
* Runs that a page quotes (``$ deop segment examples/...`` in a text block) are repeated, and the shares compared.

A comment above a block changes this. ``<!-- needs: LIBRARY -->`` is for an optional library,
``<!-- run with: ARGUMENTS -->`` adds arguments to its commands, such as fewer steps, and
``<!-- slow with: ARGUMENTS -->`` does the same with --runslow only. ``<!-- shell: ... -->`` runs the block in a shell,
where other programs have stand-ins. A block with ``<!-- not run: REASON -->`` is not run: its commands are parsed, and
its Python is compiled.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.pages import (
    BLOCK,
    PAGES,
    ROOT,
    blocks_of,
    commands,
    hub_cache,
    is_runnable,
    pages_with,
    read,
    working_directory,
)

__all__ = ["hub_cache", "working_directory"]

NOT_RUN = {"", "bibtex", "dockerfile", "ini", "json", "nginx", "text", "toml", "yaml"}
"""Languages of blocks that are shown only."""

EXAMPLE = re.compile(r"^\$ (deop segment examples/.*)\n((?:.+\n)+)", re.MULTILINE)
"""A run that a page quotes: the command, and one line per name with its share."""


def name_of(page):
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_are_well_formed(page):
    """Each block has a known language, a reason where it is not run, and shell blocks hold deop commands only."""
    blocks = blocks_of(page)
    assert read(page).count("```") == 2 * len(blocks)
    text = re.sub(r"`[^`\n]+`", "", read(page))
    marks = re.findall(r"<!-- (?:not run|needs|ci|slow with|run with|shell)\b", text)
    assert len(marks) == sum(bool(block.mark) for block in blocks)
    for block in blocks:
        place = f"{page.name}:{block.line}"
        assert block.mark != "not run" or len(block.reason) > 10, f"{place}: say why"
        assert block.language in {"python", "sh", *NOT_RUN}, place
        if block.language == "sh" and is_runnable(block, slow=True):
            for words in commands(block):
                assert words[0] == "deop", f"{place}: mark it as not run, or start the line with deop"
        if block.language in ("text", "") and block.text.startswith("deop "):
            assert re.search(r" [A-Z]{2,}", block.text), f"{place}: a command is a block of sh"


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_text_has_no_angle_brackets_that_become_html(page):
    text = BLOCK.sub("", read(page))
    text = re.sub(r"<!--.*?-->|`[^`]*`", "", text, flags=re.DOTALL)
    assert not re.findall(r"<\w[^>]*>", text)


# --- Blocks are run


def run_python(page, slow):
    namespace = {"__name__": "page"}
    for block in blocks_of(page):
        if block.language == "python" and is_runnable(block, slow):
            code = "\n" * block.line + block.text  # a traceback then shows the line number of the page
            exec(compile(code, str(page), "exec"), namespace)


def run_commands(page, capfd, slow):
    from deop.cli import main

    for block in blocks_of(page):
        if block.language != "sh" or not is_runnable(block, slow):
            continue
        for words in commands(block):
            with pytest.raises(SystemExit) as exit_info:
                main(words[1:])
            assert not exit_info.value.code, f"{page.name}:{block.line} {shlex.join(words)}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_python_blocks_run(page, working_directory):
    run_python(page, slow=False)


@pytest.mark.parametrize("page", pages_with("sh"), ids=name_of)
def test_commands_run(page, working_directory, capfd):
    run_commands(page, capfd, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- slow with: " in read(page)], ids=name_of)
def test_slow_blocks_run(page, working_directory, capfd):
    """All blocks of the page, the commands first: Python may use what they wrote."""
    run_commands(page, capfd, slow=True)
    run_python(page, slow=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("sh", "shell"), ids=name_of)
def test_pipes_run(page, working_directory):
    """In a shell, where curl gives a photo, and other programs take what they are given."""
    programs = working_directory / "bin"
    programs.mkdir()
    lines = {"deop": f'exec {sys.executable} -m deop "$@"', "curl": "cat photo.jpg", "jq": "cat", "python": "cat"}
    for name, line in lines.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    for block in blocks_of(page):
        if block.mark == "shell":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)
            assert done.returncode == 0, done.stderr.decode()


def examples_of(page):
    """(command, {name: share in percent}) of the runs that a page quotes."""
    for block in blocks_of(page):
        for command, lines in EXAMPLE.findall(block.text if block.language == "text" else ""):
            rows = (re.fullmatch(r"(.+?) +([\d.]+) %", line) for line in lines.splitlines())
            yield command, {row[1]: float(row[2]) for row in rows}


QUOTED = [(page, *example) for page in PAGES for example in examples_of(page)]


@pytest.mark.parametrize(("page", "command", "expected"), QUOTED, ids=[f"{p.name}: {c[22:]}" for p, c, _ in QUOTED])
def test_quoted_runs_are_true(page, command, expected, working_directory, capfd):
    from deop.cli import main

    with pytest.raises(SystemExit) as exit_info:
        main([*shlex.split(command)[1:], "--json", "-", "--quiet"])
    assert not exit_info.value.code
    classes = json.loads(capfd.readouterr().out)["classes"]
    shares = {one["name"]: 100 * one["share"] for one in classes}
    assert shares == pytest.approx(expected, abs=1.0)


# --- Blocks that are not run are parsed

HARMLESS = {
    "bash", "cd", "cvat-cli", "curl", "docker", "export", "jq", "label-studio", "ls", "mkdocs", "node", "npm",
    "nvidia-smi", "pytest", "sh", "systemctl", "tar", "yolo",
}  # fmt: skip
"""Words of the shell and programs of others, whose arguments are not checked."""


def parse_deop(arguments):
    """Unknown commands and options, missing and surplus arguments are errors."""
    import typer.main

    from deop.cli.app import app

    command = typer.main.get_command(app)
    context = command.make_context("deop", list(arguments), resilient_parsing=True)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        assert name in command.commands, f"deop has no command {name}"
        command = command.commands[name]
        context = command.make_context(name, list(arguments), parent=context)


def parse_pip(arguments):
    # Before pip: pip brings back Python's own distutils, with which setuptools can no longer be imported, and then
    # torch.compile fails in the same process.
    importlib.import_module("setuptools")
    from pip._internal.commands import create_command

    name, *arguments = arguments
    options, requirements = create_command(name).parse_args(arguments)
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for requirement in requirements:
        for named in re.findall(r"^(?:\.|deop)\[(.*?)\]", requirement):
            assert set(named.split(",")) <= set(extras), requirement
    assert requirements or options.editables or options.requirements, "nothing to install"


def parse_script(arguments):
    """A script of this repository, or a module: it exists, and it knows the options."""
    if arguments[0] == "-m":
        spec = importlib.util.find_spec(arguments[1])
        assert spec, f"no module {arguments[1]}"
        if arguments[1] == "deop":
            return parse_deop(arguments[2:])
        script, options = Path(spec.origin), arguments[2:] if "recipes" in arguments[1] else []
    else:
        script, options = ROOT / arguments[0], arguments[1:]
        if "/" not in arguments[0]:
            return None  # a program of the reader
    assert script.is_file(), script
    text = script.read_text(encoding="utf-8")
    for word in options:  # read, not asked: a benchmark takes seconds to import
        option = word.partition("=")[0]
        parameter = re.escape(option[2:].replace("-", "_"))
        is_known = f'"{option}"' in text or re.search(rf"^ +{parameter}: ", text, re.MULTILINE)
        assert not option.startswith("--") or is_known, f"{script.name} has no option {option}"
    return None


def parse(words):
    """One command; what comes before it, such as ``NAME=value`` or ``.venv/bin/``, is taken off."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "deop":
        parse_deop(arguments)
    elif program == "pip":
        parse_pip(arguments)
    elif program in ("python", "python3"):
        if arguments[:2] != ["-m", "venv"]:
            parse_script(arguments)
    elif program == "accelerate":
        parse_script(arguments[arguments.index("-m") :])
    elif program == "ray":
        if "--" in arguments:
            parse(arguments[arguments.index("--") + 1 :])
    elif program == "docker" and arguments[0] == "run" and "deop" in arguments:
        parse(arguments[arguments.index("deop") :])
    elif program == "make":
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", read(ROOT / "Makefile"), re.MULTILINE), f"no target {target}"
    elif "/" in words[0] and (ROOT / words[0]).is_file():
        pass  # a script of this repository
    else:
        assert program in HARMLESS or words[0] == ".", f"unknown program {words[0]}"


def parts_of(words):
    """The commands of a line of the shell, without what redirects them."""
    part = []
    for word in [*words, "|"]:
        if word in ("|", "&&", ";"):
            yield part
            part = []
        else:
            part.append(word)


@pytest.mark.parametrize("page", pages_with("sh", "not run") + pages_with("sh", "ci"), ids=name_of)
def test_commands_that_do_not_run_are_parsed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page):
        if block.language == "sh" and block.mark in ("not run", "ci"):
            for words in commands(block):
                words = [word for word in words if word not in ("<", ">", "&")]
                for part in parts_of(words):
                    try:
                        parse(part)
                    except (AssertionError, Exception, SystemExit) as error:
                        pytest.fail(f"{page.name}:{block.line} {shlex.join(part)}: {error}")


@pytest.mark.parametrize("page", pages_with("python", "not run"), ids=name_of)
def test_python_that_does_not_run_compiles_and_its_imports_exist(page):
    for block in blocks_of(page):
        if block.language == "python" and block.mark == "not run":
            code = "\n" * block.line + block.text
            compile(code, str(page), "exec")
            for line in re.findall(r"^(?:from deop\S* import .*|import deop.*)$", code, re.MULTILINE):
                exec(line, {})


def test_few_blocks_are_not_run():
    """A limit, so that an exception is a decision."""
    reasons = [block.reason for page in PAGES for block in blocks_of(page) if block.mark == "not run"]
    assert len(reasons) <= 60, reasons
