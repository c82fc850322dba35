"""The picture of the parts in docs/design.md shows the files that there are, and the imports between them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.draw_parts import ARROWS, COLOURS, FRAMES, PARTS, draw
from tests.test_layers import IMPORTS

ROOT = Path(__file__).parent.parent
SHELF = "shelf"


def full(file: str) -> str:
    return f"bws.{file}" if file else "bws"


PART_OF = {full(file): part.name for part in PARTS for file in part.files}


def part_of(module: str) -> str:
    """The part of a module; the folders that are one part are named once."""
    for folder in ("bws.dispatch", "bws.testing"):
        if module.startswith(folder):
            module = folder if folder == "bws.dispatch" else "bws.testing"
    return PART_OF.get(module, "testing" if module == "bws.testing" else "")


def imports() -> set[tuple[str, str]]:
    """Which part takes something of which other one when the program runs; what all may use left out."""
    found = set()
    for module, names in IMPORTS.items():
        for name in (i.name for i in names if i.top == "bws" and not i.typing_only):
            # "from . import x" reads as an import of the package too, which is x alone
            if name == module.rpartition(".")[0] or (name == "bws" and not module.startswith("bws.testing")):
                continue
            found.add((part_of(module), part_of(name)))
    return {(tail, head) for tail, head in found if tail != head and head != SHELF}


def test_every_file_is_in_one_part() -> None:
    assert [module for module in IMPORTS if not part_of(module)] == []
    files = [file for part in PARTS for file in part.files]
    assert len(files) == len(set(files))
    assert [file for file in files if full(file) not in IMPORTS] == []


def test_the_arrows_of_the_picture_are_the_imports() -> None:
    drawn = {(arrow.tail, arrow.head) for arrow in ARROWS if not arrow.calls}
    assert drawn == imports()


def test_what_all_may_use_knows_nothing_else() -> None:
    assert [edge for edge in imports() if edge[0] == SHELF] == []


def test_an_arrow_begins_and_ends_at_the_edge_of_its_boxes() -> None:
    boxes = {part.name: part for part in [*PARTS, *FRAMES]}
    for arrow in ARROWS:
        for name, (x, y) in ((arrow.tail, arrow.points[0]), (arrow.head, arrow.points[-1])):
            box = boxes[name]
            on_side = x in (box.x, box.x + box.w) and box.y <= y <= box.y + box.h
            on_end = y in (box.y, box.y + box.h) and box.x <= x <= box.x + box.w
            assert on_side or on_end, (arrow, name)


@pytest.mark.parametrize("theme", COLOURS)
def test_the_pictures_are_those_that_the_program_draws(theme: str) -> None:
    file = ROOT / "docs" / "images" / f"parts-{theme}.svg"
    assert file.read_text(encoding="utf-8") == draw(theme), "make screenshots"
    assert f"images/{file.name}" in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_picture_names_the_files_of_the_engine() -> None:
    shown = set(re.findall(r">(\w+)</text>", draw("light")))
    engine = {module.rpartition(".")[2] for module in IMPORTS if part_of(module) == "engine"}
    inside_connect = {"patience", "tcp", "proxies", "relay", "tls", "tls_stream"}
    beside_the_outbox, beside_the_loop = {"trail"}, {"watch"}
    assert engine - shown - {"threaded"} == inside_connect | beside_the_outbox | beside_the_loop
