"""The page on the architecture: its picture is what the code draws, its files exist, and each room has a row."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hf_dynprune.docs_pages import architecture, floors
from hf_dynprune.docs_pages.source import PACKAGE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "appendix" / "architecture.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(architecture.architecture_picture())


def rooms_drawn() -> dict[str, tuple[float, float, float]]:
    """Left, top and right edge by room."""
    picture = drawn()
    names = [text.text for text in picture.iter(f"{SVG}text") if text.get("class") == "n"]
    boxes = [box for box in picture.iter(f"{SVG}rect") if box.get("rx") == "8"]
    edges = [(float(box.get("x")), float(box.get("y")), float(box.get("x")) + float(box.get("width"))) for box in boxes]
    return dict(zip(names, edges, strict=True))


def test_the_picture_is_up_to_date():
    saved = (ROOT / "docs" / architecture.PICTURE).read_text(encoding="utf-8")
    assert saved == architecture.architecture_picture(), "the picture is out of date: run `make docs`"


def test_the_picture_is_written_where_it_changed(tmp_path):
    (tmp_path / "docs" / "appendix").mkdir(parents=True)
    assert architecture.write_picture(tmp_path)
    assert not architecture.write_picture(tmp_path)
    assert (tmp_path / "docs" / architecture.PICTURE).read_text() == architecture.architecture_picture()


def test_each_room_stands_on_its_floor_and_beside_the_others():
    rooms = rooms_drawn()
    assert set(rooms) == set(floors.FLOOR_OF) - architecture.NOT_DRAWN
    tops = [{rooms[room][1] for room in floor - architecture.NOT_DRAWN} for floor in floors.FLOORS]
    heights = [top for floor in tops for top in floor]
    assert all(len(floor) <= 1 for floor in tops)
    assert heights == sorted(set(heights), reverse=True)
    for floor in floors.FLOORS:
        edges = sorted(rooms[room] for room in floor - architecture.NOT_DRAWN)
        assert all(left[2] < right[0] for left, right in pairwise(edges))


def test_each_arrow_leads_from_a_room_to_one_that_it_imports():
    rooms = rooms_drawn()

    def room_at(x: float, y: float) -> str:
        (found,) = (name for name, (left, top, right) in rooms.items() if left < x < right and top - 3 < y < top + 47)
        return found

    found = set()
    for path in drawn().iter(f"{SVG}path"):
        if path.get("class") == "a":
            numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d"))]
            found.add((room_at(*numbers[:2]), room_at(*numbers[-2:])))
    arrows = floors.reduced({room: ends - architecture.NOT_DRAWN for room, ends in floors.imported_rooms().items()})
    assert found == {(start, end) for start, ends in arrows.items() for end in ends}


def test_no_import_is_lost_by_leaving_out_arrows():
    arrows = floors.imported_rooms()
    few = floors.reduced(arrows)

    def reached(start: str) -> set[str]:
        return set(few[start]).union(*map(reached, few[start]))

    assert all(arrows[room] <= reached(room) and few[room] <= arrows[room] for room in arrows)
    assert sum(map(len, few.values())) < sum(map(len, arrows.values()))


def test_the_rooms_that_the_page_calls_unused_are_those_that_no_other_imports():
    assert set(floors.FLOOR_OF) - set().union(*floors.imported_rooms().values()) == {"cli", "models", "testing"}
    assert "Nothing in the package\nimports `models` and `testing`" in PAGE


def test_each_room_has_a_row_with_what_it_may_import():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| `([\w/.]+)` \|$", PAGE, re.MULTILINE)
    assert [floors.FLOOR_OF[room] for room, _, _ in rows] == sorted(floors.FLOOR_OF.values(), reverse=True)
    assert {room for room, _, _ in rows} == set(floors.FLOOR_OF)
    assert {room for room, packages, _ in rows if packages == "numpy alone"} == floors.NUMPY_ONLY
    assert {room for room, packages, _ in rows if packages == "no torch at import"} == floors.WITHOUT_TORCH
    assert all(file.removesuffix(".py").split("/")[0] == room for room, _, file in rows)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_each_file_that_the_page_names_is_there(name):
    assert (PACKAGE / name).exists()


NAMED = r"`([A-Za-z_]\w*(?:\.\w+)?)`,? \(`([\w/]+\.py)`\)|`([A-Za-z_]\w*)` in `([\w/]+\.py)`"


@pytest.mark.parametrize("match", re.findall(NAMED, PAGE), ids=lambda match: match[0] or match[2])
def test_each_name_that_the_page_looks_for_in_a_file_is_in_it(match):
    name, file = match[0] or match[2], match[1] or match[3]
    source = (PACKAGE / file).read_text(encoding="utf-8")
    assert all(re.search(rf"\b(def|class) {part}\b", source) for part in name.split("."))
