"""deop.toml: where it is found, what it sets, and what is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from deop.cli.config_file import find_files, typed
from deop.cli.options import InFile, name_list, option
from deop.cli.signature import flat
from deop.errors import SettingError


@dataclass(frozen=True)
class Group:
    """Some options."""

    names: Annotated[str, InFile(str | tuple[str, ...], name_list), option("--names", "-n", help="N.")] = ""
    file: Annotated[Path | None, option("--file", help="F.")] = None
    mode: Annotated[Literal["fast", "slow"], option("--mode", help="M.")] = "fast"


SEEN = {}


def first(
    context: typer.Context,
    photo: str,
    group: Group,
    count: Annotated[int, option("--count", min=1, max=9, help="C.")] = 1,
    share: Annotated[float | None, option("--share", help="S.")] = None,
    tags: Annotated[list[str] | None, option("--tag", help="T.")] = None,
    legend: Annotated[bool, option("--legend/--no-legend", help="L.")] = True,
    debug: Annotated[bool, option("--debug", help="D.")] = False,
) -> None:
    """A command with a group of options."""
    SEEN.update(group=group, count=count, share=share, tags=tags, legend=legend, typed=typed(context, "count"))
    if count == 7:
        raise SettingError("not 7")


def second(level: Annotated[int, option("--level", help="L.")] = 0) -> None:
    """Another command."""


@pytest.fixture
def run(here):
    """``run("photo", "--count", "3")`` runs the command ``first`` and returns what it was called with."""
    app = typer.Typer()
    app.command()(flat(first))
    app.command()(flat(second))

    def run(*arguments):
        SEEN.clear()
        app(args=["first", "photo", *arguments], standalone_mode=False)
        return dict(SEEN)

    return run


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_options_of_a_data_class_are_options_of_the_command(run):
    seen = run("-n", "cat", "--mode", "slow")
    assert (seen["group"], seen["count"]) == (Group("cat", None, "slow"), 1)


def test_every_type_of_option_can_be_set(run):
    write(
        "deop.toml",
        "[first]\nnames = ['cat, big', 'dog']\nfile = 'a.txt'\nmode = 'slow'\ncount = 3\nshare = 1\ntag = ['x', 'y']\n"
        "legend = false\n[second]\nlevel = 2\n",
    )
    seen = run()
    assert seen["group"] == Group("cat, big;dog;", Path("a.txt"), "slow")
    assert [seen[key] for key in ("count", "share", "tags", "legend")] == [3, 1.0, ["x", "y"], False]
    assert isinstance(seen["share"], float)


def test_the_command_line_wins(run):
    write("deop.toml", "[first]\ncount = 3\nlegend = false\n")
    assert run("--count", "1")["count"] == 1
    assert run("--legend")["legend"] is True


def test_a_command_can_tell_what_was_typed(run):
    write("deop.toml", "[first]\ncount = 3\n")
    assert not run()["typed"]
    assert run("--count", "3")["typed"]


def test_no_config_and_config(run):
    write("deop.toml", "[first]\ncount = 3\n")
    other = write("other/my.toml", "[first]\nshare = 0.5\n")
    assert run("--no-config")["count"] == 1
    seen = run("--config", str(other))
    assert (seen["count"], seen["share"]) == (1, 0.5), "in place of deop.toml"
    for arguments in (["--config", str(other), "--no-config"], ["--no-config", "--config", str(other)]):
        with pytest.raises(SettingError, match="exclude each other"):
            run(*arguments)


def test_underscores_are_dashes(run):
    app = typer.Typer()

    def wide(line_width: Annotated[int, option("--line-width", help="W.")] = 0) -> None:
        SEEN["width"] = line_width

    app.command()(flat(wide))
    app.command()(flat(second))
    for key in ("line-width", "line_width"):
        write("deop.toml", f"[wide]\n{key} = 4\n")
        app(args=["wide"], standalone_mode=False)
        assert SEEN["width"] == 4
    write("deop.toml", "[wide]\nline-width = 4\nline_width = 5\n")
    with pytest.raises(SettingError, match="twice"):
        app(args=["wide"], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[first]\ncuont = 3\n", r"unknown key 'cuont' in \[first\] of deop\.toml \(did you mean 'count'\?\).*share"),
        ("[firsts]\ncount = 3\n", r"unknown section \[firsts\] in deop\.toml \(did you mean 'first'\?\).*second"),
        ("count = 3\n", "unknown section|outside a section"),
        ("first = 3\n", "outside a section"),
        ("[first]\ncount = '3'\n", r"count = '3' in \[first\] of deop\.toml has the wrong type.*a whole number"),
        ("[first]\ncount = 3.5\n", "a whole number"),
        ("[first]\ncount = true\n", "a whole number"),
        ("[first]\nlegend = 1\n", "true or false"),
        ("[first]\nmode = 'quick'\n", "fast or slow"),
        ("[first]\nnames = [1]\n", "a string or a list, each a string"),
        ("[first]\ntag = 'x'\n", "a list, each a string"),
        ("[first]\ncount = 0\n", "at least 1"),
        ("[first]\ncount = 10\n", "at most 9"),
        ("[first]\nphoto = 'x'\n", "unknown key 'photo'"),
        ("[first]\ndebug = true\n", "unknown key 'debug'"),
        ("[first]\nconfig = 'x'\n", "unknown key 'config'"),
        ("[second]\nlevle = 1\n", "unknown key 'levle'"),
        ("[first\n", r"cannot read deop\.toml.*line 1"),
    ],
)
def test_mistakes_are_refused_with_the_file_and_the_key(run, text, message):
    write("deop.toml", text)
    with pytest.raises(SettingError, match=message):
        run()


def test_a_file_that_is_missing_or_in_another_encoding(run):
    with pytest.raises(SettingError, match=r"cannot read gone\.toml"):
        run("--config", "gone.toml")
    Path("deop.toml").write_bytes("[first]\nnames = 'café'".encode("latin-1"))
    with pytest.raises(SettingError, match="UTF-8"):
        run()
    Path("deop.toml").write_bytes("[first]\nnames = 'café'".encode("utf-8-sig"))
    assert run()["group"].names == "café"


def test_an_error_about_options_says_what_the_file_sets(run):
    write("deop.toml", "[first]\ncount = 7\nlegend = false\n")
    with pytest.raises(SettingError) as caught:
        run()
    assert caught.value.__notes__ == ["deop.toml sets count, legend"]
    with pytest.raises(SettingError) as caught:
        run("--count", "7", "--no-config")
    assert not hasattr(caught.value, "__notes__")


def test_a_project_file_wins_over_that_of_the_user(run, monkeypatch, tmp_path):
    user = tmp_path / "user"
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(user / name))
    write(user / "deop" / "deop.toml", "[first]\ncount = 2\nshare = 0.2\n")
    write("deop.toml", "[first]\ncount = 3\n")
    seen = run()
    assert (seen["count"], seen["share"]) == (3, 0.2)


def test_paths_are_relative_to_the_file(run, here, monkeypatch):
    (here / ".git").mkdir()
    write("deop.toml", "[first]\nfile = 'names.txt'\n")
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    assert run()["group"].file == Path("../names.txt")
    write(here / "deop.toml", "[first]\nfile = '-'\n")
    assert run()["group"].file == Path("-")
    write(here / "deop.toml", f"[first]\nfile = '{here.as_posix()}/x'\n")
    assert run()["group"].file == here / "x"


@pytest.mark.parametrize("kind", ["repository", "home", "neither"])
def test_directories_above_are_searched_up_to_the_repository_or_home(here, monkeypatch, kind):
    write("deop.toml", "")
    write("top/deop.toml", "")
    write("top/low/x", "")
    if kind == "repository":
        write("top/low/.git/x", "")
        monkeypatch.chdir("top/low")
        assert find_files() == [], "nothing above the root of the repository"
        (Path(".git") / "x").unlink()
        Path(".git").rmdir()
        write("../.git", "gitdir: elsewhere")  # as in a worktree
    elif kind == "home":
        monkeypatch.setattr(Path, "home", lambda: here / "top")
        monkeypatch.chdir("top/low")
    else:
        monkeypatch.setattr(Path, "home", lambda: here / "elsewhere")
        monkeypatch.chdir("top/low")
        assert find_files() == []
        monkeypatch.chdir("..")
        assert find_files() == [Path("deop.toml")]
        return
    assert find_files() == [Path("../deop.toml")]


def test_config_shows_what_is_set(deop, here):
    write("deop.toml", "[segment]\nbatch = 4\n")
    done = deop("config")
    assert done.code == 0, done.err
    assert done.out == "[segment]\nbatch = 4  # deop.toml\n"
    assert "bench" in deop("config", "--keys").out
    write("deop.toml", "[segment]\nbatch = 'x'\n")
    done = deop("config")
    assert (done.code, done.out) == (2, "")
    Path("deop.toml").unlink()
    done = deop("config")
    assert (done.code, done.out) == (0, "")
    assert "no deop.toml" in done.err


def test_the_example_of_the_docs_is_valid(deop, here):
    page = (Path(__file__).parents[2] / "docs" / "segmenting.md").read_text(encoding="utf-8")
    example = page.split("```text\n[segment]")[1].split("```")[0]
    write("deop.toml", "[segment]" + example)
    done = deop("config")
    assert done.code == 0, done.err
    assert 'classes = "cat;sofa|couch;a wall, painted;"' in done.out
