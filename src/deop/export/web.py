"""A static web page that runs an exported model in the browser, without a server and without a request to others."""

import hashlib
import json
import shutil
from pathlib import Path

from deop._version import __version__
from deop.errors import CheckpointError, MissingDependencyError, OutputError, SettingError
from deop.files import sha256, writing_folder
from deop.runtime.config import RuntimeConfig, read_runtime_config

PAGE = Path(__file__).parent.parent / "web"
"""The built page (web/README.md)."""

SOURCE = PAGE.parents[2]
"""The folder of deop's source, where it runs from there; elsewhere it has no ``web``."""

RUNTIME_VERSION = "1.30.0"
"""The release of onnxruntime-web that the page is tested with, as in web/package-lock.json."""

_RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_WEBGPU_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_ENGINE = '<meta name="deop-engine" content="http" />'
_PACKAGE = "onnxruntime-web"


def export_site(folder: str | Path, target: str | Path, *, runtime: str | Path | None = None) -> Path:
    """Write a static page that runs a model in the browser: ``deop export nano DIR --web``.

    The page consists of files alone, with relative addresses: any web server can serve it from any folder. It asks
    nothing of other hosts, and photos stay in the browser.

    Args:
        folder: the exported model, with its word table ("text" of kind "words").
        target: the folder to write; it must not exist, or be empty.
        runtime: the unpacked npm package onnxruntime-web, or a folder that contains it; None: the one that
            ``npm ci`` installed in the ``web`` folder of deop's source.

    Returns:
        ``index.html``.

    Raises:
        CheckpointError: the model is damaged, or its files do not match their SHA-256.
        SettingError: a model that browsers cannot run; or ``runtime`` is not the package, or is another release.
        MissingDependencyError: onnxruntime-web is not there; the message says how to get it.
        OutputError: the target has files already, or cannot be written.
    """
    config = read_runtime_config(folder)
    _check_model(config)
    package = _find_runtime(runtime)
    target = Path(target)
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"{target} has files already: choose a folder that does not exist, or delete it first")
    with writing_folder(target) as site:
        shutil.copytree(PAGE, site, dirs_exist_ok=True)
        (site / "model").mkdir()
        shutil.copyfile(config.folder / "config.json", site / "model" / "config.json")
        for name in _model_files(config):
            shutil.copyfile(config.folder / name, site / "model" / name)
        (site / "onnxruntime").mkdir()
        for name in (*_RUNTIME_FILES, *_WEBGPU_FILES):
            shutil.copyfile(package / "dist" / name, site / "onnxruntime" / name)
        (site / "onnxruntime" / "LICENSE").write_text(_LICENSE, encoding="utf-8")
        fetched = sorted(path for part in ("model", "onnxruntime") for path in (site / part).iterdir())
        files = {
            path.relative_to(site).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
            for path in fetched
            if path.name != "LICENSE"
        }
        _check_hashes(config, files)
        listed = json.dumps({"deop": __version__, "runtime": RUNTIME_VERSION, "files": files}, indent=1) + "\n"
        (site / "site.json").write_text(listed, encoding="utf-8")
        page = (site / "index.html").read_text(encoding="utf-8")
        if _ENGINE not in page:
            raise SettingError(f"{PAGE} was not built from this version of deop: run `make web`")
        version = hashlib.sha256(listed.encode()).hexdigest()[:12]
        engine = _ENGINE.replace("http", "wasm") + f'\n    <meta name="deop-site" content="{version}" />'
        (site / "index.html").write_text(page.replace(_ENGINE, engine), encoding="utf-8")
        (site / "_headers").write_text(_HEADERS, encoding="utf-8")
        (site / "README.md").write_text(_readme(config), encoding="utf-8")
    return target / "index.html"


def _check_model(config: RuntimeConfig) -> None:
    """Check that the page can run a model.

    Raises:
        SettingError: naming what it lacks.
    """
    name = config.card.name or str(config.folder)
    if config.onnx.text.kind != "words":
        raise SettingError(
            f"{name} embeds names with a text network, which is too large for a web page: export a model with a word "
            "table, such as nano"
        )
    if config.onnx.masks_are_instances or config.settings.resize.interpolation != "bilinear":
        raise SettingError(f"the web page runs small models such as nano only, and {name} is of another kind")
    if config.onnx.graphs_of(None).encode is None:
        raise SettingError(f"{name} has no masks of its own, which the web page needs: export a model with a proposer")


def _model_files(config: RuntimeConfig) -> list[str]:
    """The files that the page fetches: the graph of the first precision, the weights, the words."""
    graphs = config.onnx.graphs_of(None)
    assert graphs.encode is not None  # checked by _check_model
    weights = [name for name in config.onnx.files if name.endswith(".safetensors")]
    # The page learns examples with the graph for given masks.
    return [graphs.encode, *([graphs.regions] if graphs.regions else []), *weights, "words.txt"]


def _check_hashes(config: RuntimeConfig, files: dict[str, dict[str, object]]) -> None:
    for name in _model_files(config):
        if files[f"model/{name}"]["sha256"] != config.onnx.files[name]:
            raise CheckpointError(
                f"{config.folder / name} is damaged or belongs to another model: its SHA-256 is not the one in "
                "config.json. Fetch or export the folder again"
            )


def _find_runtime(given: str | Path | None) -> Path:
    """The folder of the npm package.

    Raises:
        MissingDependencyError: it is not there.
        SettingError: the folder is not the package, or another release.
    """
    remedy = (
        f"`npm pack {_PACKAGE}@{RUNTIME_VERSION}` and `tar xf {_PACKAGE}-{RUNTIME_VERSION}.tgz` write it to a folder "
        f"package: give that with --onnxruntime-web package"
    )
    if given is None:
        source = SOURCE / "web" / "node_modules" / _PACKAGE
        if not (source / "package.json").is_file():
            raise MissingDependencyError(
                f"the page needs {_PACKAGE} {RUNTIME_VERSION}, which is not part of deop: {remedy}"
            )
        candidates = [source]
    else:
        root = Path(given)
        candidates = [root, root / "package", root / "node_modules" / _PACKAGE]
    for folder in candidates:
        try:
            about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
            name, version = about.get("name"), about.get("version")
        except (OSError, ValueError, AttributeError):
            continue
        if name != _PACKAGE:
            continue
        if version != RUNTIME_VERSION:
            raise SettingError(
                f"{folder} is {_PACKAGE} {version}, and this page is built for {RUNTIME_VERSION}: {remedy}"
            )
        for file in (*_RUNTIME_FILES, *_WEBGPU_FILES):
            if not (folder / "dist" / file).is_file():
                raise SettingError(f"{folder} has no dist/{file}: unpack it again. {remedy}")
        return folder
    raise SettingError(f"{given if given is not None else candidates[0]} is not the npm package {_PACKAGE}: {remedy}")


_HEADERS = """\
# Read by Netlify, Cloudflare Pages and others. The first two let WebAssembly use threads.
/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  X-Content-Type-Options: nosniff
"""

_LICENSE = """\
The files in this folder are from onnxruntime-web, https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def _readme(config: RuntimeConfig) -> str:
    return f"""\
# deop in the browser

A page that labels every pixel of a photo with names of your choice. Everything runs in the browser: photos are not
sent anywhere, and the page asks nothing of other hosts. Written by `deop export --web`, deop {__version__}.

Serve this folder with any web server, at any address; a page that is opened as a file cannot load its model:

    python -m http.server

WebAssembly uses several threads if the page is cross-origin isolated: if the server sends

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp

`_headers` has them for servers that read it. With other servers the page's service worker (`service.js`) adds them, at
https addresses and at localhost; delete that file if you do not want one. Without them, one thread is used. Servers
should compress `.wasm` and `.js` files.

| | |
|---|---|
| `model/` | {config.card.name}: {config.card.license} |
| `onnxruntime/` | onnxruntime-web {RUNTIME_VERSION}: MIT (`onnxruntime/LICENSE`) |
| `page.js`, `engine.js` | deop: Apache-2.0, with Preact and noble-hashes: MIT (`LICENSES.txt`) |
| `samples/` | photos in the public domain (`samples/CREDITS.md`) |
"""
