"""The documentation as a site: every page is in the navigation, a strict build passes, nothing comes from other sites,
and the questions of a visitor are answered within two clicks from README."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.pages import BLOCK, DOCS, PAGES, ROOT, read

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    return BLOCK.sub("", read(page))


def links_of(page: Path) -> list[str]:
    return LINK.findall(prose(page))


def test_navigation_has_every_page_once():
    listed = re.findall(r": ([\w/-]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_pages_link_within_the_site(page):
    """A relative link to a file outside docs/ works on neither the site nor an index; name the file instead."""
    for target in [*links_of(page), *re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", prose(page))]:
        if not urlsplit(target).scheme:
            path = (page.parent / target.partition("#")[0]).resolve()
            assert path.is_relative_to(DOCS), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_external_links_are_complete(page):
    """Their form only: tests have no network."""
    for target in links_of(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("https", "mailto"), target
            assert parts.scheme == "mailto" or re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), target
            assert "example.org" not in target, target


# --- What a visitor looks for

QUESTIONS = {
    "how to get COCO instance masks": ("start.md", r"deop segment [^`\n]*--mode instance [^`\n]*--coco"),
    "why a name vanished": ("troubleshooting.md", r"## Why did my name vanish\?"),
    "whether commercial use is allowed": ("licences.md", r"\| commercial use \|"),
    "how to run on ten thousand photos": ("many-photos.md", r"deop batch photos"),
    "how to deploy without torch": ("export.md", r"without torch|no torch"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_answered_within_two_clicks_from_the_readme(question):
    answer, pattern = QUESTIONS[question]
    assert re.search(pattern, read(DOCS / answer)), f"{answer} does not say {question}"
    reached = {ROOT / "README.md"}
    for _ in range(2):
        pages = {page for page in reached if page.suffix == ".md" and page.is_file()}
        reached |= {(page.parent / target.partition("#")[0]).resolve() for page in pages for target in links_of(page)}
    assert DOCS / answer in reached


# --- The built site


class Resources(HTMLParser):
    """What a browser fetches to show a page, and the page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if values.get("id"):
            self.anchors.add(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed") and values.get("src"):
            self.fetched.append(values["src"])
        if tag == "link" and values.get("href") and values.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # about the end of MkDocs: see pyproject.toml
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def built(site):
    """Each built page with its resources."""
    pages = {}
    for file in site.rglob("*.html"):
        pages[file] = Resources()
        pages[file].feed(file.read_text(encoding="utf-8"))
    return pages


@pytest.mark.slow
def test_the_site_is_built_strictly(site, built):
    assert len(built) >= len(PAGES)
    assert (site / "search" / "search_index.json").is_file()


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site, built):
    for file, resources in built.items():
        for target in resources.fetched:
            assert not urlsplit(target).netloc, f"{file.relative_to(site)} fetches {target}"
    for file in site.rglob("*.css"):
        for target in re.findall(r"url\(([^)]+)\)", file.read_text(encoding="utf-8")):
            assert not re.match(r"[\"']?(https?:)?//", target), f"{file.relative_to(site)} fetches {target}"


@pytest.mark.slow
def test_links_and_anchors_of_the_built_site_exist(site, built):
    for file, resources in built.items():
        for link in resources.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / parts.path).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{file.relative_to(site)} links to {link}"
            if parts.fragment and target in built and not parts.fragment.startswith("__"):
                assert parts.fragment in built[target].anchors, f"{file.relative_to(site)} links to {link}"


@pytest.mark.slow
def test_the_api_reference_has_the_public_names(site):
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("deop.zoo.load", "deop.model.DeOP", "deop.results.segmentation.Segmentation",
                 "deop.tiles.segmenting.segment_tiles", "deop.batch.run.run_batch", "deop.serving.app.create_app",
                 "deop.export.folder.export_model", "deop.evaluation.evaluate.evaluate"):  # fmt: skip
        assert f'id="{name}"' in page, name
