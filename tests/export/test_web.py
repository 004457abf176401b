"""The static page: its files, and what is refused before anything is written."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from deop.errors import CheckpointError, DeopError, MissingDependencyError, OutputError, SettingError
from deop.export import web
from deop.export.web import RUNTIME_VERSION, export_site
from deop.zoo import NANO

SOURCE = Path(__file__).parents[2]
FILES = [*web._RUNTIME_FILES, *web._WEBGPU_FILES]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A stand-in of the npm package: the right names and version, small files."""
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": RUNTIME_VERSION}))
    for name in FILES:
        (package / "dist" / name).write_text(f"content of {name}")
    return package


def test_the_page_is_complete(runtime: Path, tmp_path: Path) -> None:
    page = export_site(NANO, tmp_path / "site", runtime=runtime)
    site = page.parent
    assert page == tmp_path / "site" / "index.html"
    listed = json.loads((site / "site.json").read_text())["files"]
    assert {
        "model/config.json",
        "model/encode.onnx",
        "model/regions.onnx",
        "model/model.safetensors",
        "model/words.txt",
    } <= set(listed)
    assert {f"onnxruntime/{name}" for name in FILES} <= set(listed)
    for name, entry in listed.items():
        content = (site / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = page.read_text()
    assert '<meta name="deop-engine" content="wasm" />' in text
    for reference in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert (site / reference).is_file(), reference
    assert "Microsoft" in (site / "onnxruntime" / "LICENSE").read_text()
    assert "Cross-Origin-Embedder-Policy: require-corp" in (site / "_headers").read_text()
    assert "http.server" in (site / "README.md").read_text()


def test_no_address_of_another_host(runtime: Path, tmp_path: Path) -> None:
    site = export_site(NANO, tmp_path / "site", runtime=runtime).parent
    allowed = ("http://www.w3.org/", "https://preactjs.com")  # names of XML, and the licences
    for path in site.rglob("*"):
        if path.suffix in (".html", ".js", ".css", ".json") and "onnxruntime" not in path.parts:
            found = re.findall(r"https?://[\w./-]+", path.read_text(encoding="utf-8"))
            assert [address for address in found if not address.startswith(allowed)] == [], path
            assert not re.findall(r'(?:src|href)="/', path.read_text(encoding="utf-8")), "addresses are relative"


@pytest.mark.parametrize("place", [".", "package", "node_modules/onnxruntime-web"])
def test_where_the_package_may_be(runtime: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(runtime, tmp_path / "given" / place, dirs_exist_ok=True)
    assert export_site(NANO, tmp_path / "site", runtime=tmp_path / "given").is_file()


def test_the_page_and_its_lock_have_one_version() -> None:
    lock = json.loads((SOURCE / "web" / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/onnxruntime-web"]["version"] == RUNTIME_VERSION


def _other_version(package: Path) -> None:
    (package / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.0.0"}))


def _other_package(package: Path) -> None:
    (package / "package.json").write_text(json.dumps({"name": "left-pad", "version": RUNTIME_VERSION}))


@pytest.mark.parametrize(
    ("break_package", "message"),
    [
        (_other_version, "is onnxruntime-web 1.0.0"),
        (_other_package, "is not the npm package"),
        (lambda package: (package / "package.json").write_text("[1"), "is not the npm package"),
        (lambda package: (package / "package.json").unlink(), "is not the npm package"),
        (lambda package: (package / "dist" / FILES[2]).unlink(), f"has no dist/{FILES[2]}"),
    ],
)
def test_another_package_is_refused(runtime: Path, tmp_path: Path, break_package, message: str) -> None:
    break_package(runtime)
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        export_site(NANO, tmp_path / "site", runtime=runtime)
    assert f"npm pack onnxruntime-web@{RUNTIME_VERSION}" in str(caught.value)
    assert not (tmp_path / "site").exists()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "SOURCE", tmp_path)
    with pytest.raises(MissingDependencyError, match=f"npm pack onnxruntime-web@{RUNTIME_VERSION}"):
        export_site(NANO, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_folder_with_files_is_not_overwritten(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="has files already"):
        export_site(NANO, tmp_path / "site", runtime=runtime)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["mine.txt"]


def _copy_of_nano(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NANO, tmp_path / "model"))


def test_damaged_weights_are_refused(runtime: Path, tmp_path: Path) -> None:
    model = _copy_of_nano(tmp_path)
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        export_site(model, tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"kind": "names", "file": "model.safetensors", "width": 257}}, "embeds names with a text network"),
        ({"masks_are_instances": True}, "small models such as nano only"),
        ({"graphs": {"float32": {"encode": None, "regions": "encode.onnx"}}}, "no masks of its own"),
    ],
)
def test_models_that_browsers_cannot_run(runtime: Path, tmp_path: Path, changes: dict, message: str) -> None:
    model = _copy_of_nano(tmp_path)
    config = json.loads((model / "config.json").read_text())
    config["onnx"].update(changes)
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(DeopError, match=message):
        export_site(model, tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()
