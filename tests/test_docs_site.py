"""The documentation as a site: it builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import bws
import bws.dispatch
import bws.errors
import bws.testing
import bws.testing.pytest_plugin

ROOT = Path(__file__).parent.parent
TIMEOUT = 240.0  # s, for a build that takes five

pytestmark = pytest.mark.timeout(300)


class Page(HTMLParser):
    """What a page links to, what can be linked to on it, and its pictures."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[dict[str, str]] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") == "stylesheet":
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-b", "html",
         "-d", str(out / ".doctrees"), "docs", str(out)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def test_every_page_of_the_folder_is_a_page_of_the_site(site: Path, pages: dict[Path, Page]) -> None:
    sources = [file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md") if "_build" not in file.parts]
    assert len(sources) >= 14
    assert {site / source.with_suffix(".html") for source in sources} <= set(pages)


def test_every_link_leads_to_a_page_and_a_place_on_it(site: Path, pages: dict[Path, Page]) -> None:
    checked = 0
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            checked += 1
            if target.is_dir() or not target.is_file():
                broken.append((file.relative_to(site).as_posix(), link))
            elif parts.fragment and target.suffix == ".html":
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in anchors:
                    broken.append((file.relative_to(site).as_posix(), link))
    assert checked > 500
    assert broken == []


def test_links_to_other_sites_are_https(pages: dict[Path, Page]) -> None:
    links = {link for page in pages.values() for link in page.links if urlsplit(link).scheme}
    assert len(links) > 10
    assert [link for link in links if urlsplit(link).scheme != "https"] == []


def test_every_picture_is_there_and_says_what_it_shows(pages: dict[Path, Page]) -> None:
    pictures = [(file, picture) for file, page in pages.items() for picture in page.pictures]
    assert len(pictures) > 15
    assert [picture for file, picture in pictures if not (file.parent / picture["src"]).is_file()] == []
    assert [picture for _, picture in pictures if len(picture.get("alt", "")) < 10] == []


def test_a_light_picture_has_its_dark_one(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        kinds = [
            kind for picture in page.pictures for kind in picture.get("class", "").split() if kind.startswith("only-")
        ]
        assert kinds.count("only-light") == kinds.count("only-dark")


def public() -> set[str]:
    """The full names that the reference has to have."""
    names = {f"bws.{name}" for name in bws.__all__ if name != "dispatch"}
    names |= {f"bws.dispatch.{name}" for name in bws.dispatch.__all__}
    names |= {f"bws.errors.{name}" for name in bws.errors.__all__ if name not in bws.__all__}
    names |= {f"bws.testing.{name}" for name in bws.testing.__all__}
    names |= {f"bws.testing.pytest_plugin.{name}" for name in bws.testing.pytest_plugin.__all__}
    names |= {f"bws.WebSocket.{name}" for name in dir(bws.WebSocket) if not name.startswith("_")}
    for owner in (bws.testing.EchoServer, bws.testing.Record):
        names |= {f"bws.testing.{owner.__name__}.{name}" for name in dir(owner) if not name.startswith("_")}
    return names | {f"bws.dispatch.Queue.{name}" for name in ("run_pending", "run_until")}


def test_the_reference_has_every_public_name_and_member(site: Path, pages: dict[Path, Page]) -> None:
    anchors = pages[site / "reference.html"].anchors
    assert len(public()) > 60
    assert sorted(public() - anchors) == []


def test_the_reference_names_nothing_private(site: Path) -> None:
    shown = re.sub(r"<[^>]+>", "", (site / "reference.html").read_text(encoding="utf-8"))
    assert re.findall(r"(?:bws\.|\b)_(?!_)\w+\.\w+", shown) == []


# -- pages that are read on the web site of the repository ---------------------------------------------


def slug(title: str) -> str:
    """The anchor of a heading there."""
    plain = re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_a_link_with_a_place_leads_to_a_heading(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    broken = []
    for path, place in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
        target = (ROOT / path) if path else ROOT / name
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        if place not in map(slug, headings):
            broken.append((path, place))
    assert broken == []
