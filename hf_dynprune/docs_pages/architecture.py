"""`docs/appendix/architecture.svg`: the rooms on their floors, an arrow for each import that no other arrows stand for.

Drawn from the source by `make docs`. Where rooms stand on a floor is worked out so that few arrows cross: the usual
drawing of layered graphs, in which an arrow has a place of its own on each floor that it passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum
from pathlib import Path
from xml.sax.saxutils import escape

from .floors import FLOORS, NUMPY_ONLY, WITHOUT_TORCH, imported_rooms, reduced
from .source import FILES, room_of

PICTURE = "appendix/architecture.svg"
NOT_DRAWN = frozenset({"_version"})
"""One line that any room may read; arrows to it would say nothing."""

BOX, STOREY, GAP, MARGIN = 46, 88, 12, 14
"""Height of a room, height of a floor, space between rooms, space at the edges."""
STYLE = (
    ".n{font-size:15px;font-weight:bold;text-anchor:middle;fill:#222}.f{font-size:12.5px;text-anchor:middle;fill:#333}"
    ".l{font-size:13px;fill:#222}.a{fill:none;stroke:#555;stroke-width:1.5}"
    ".numpy{fill:#E6F0F8;stroke:#0072B2}.files{fill:#E3F3EC;stroke:#00795A}.any{fill:#FDF3DC;stroke:#B97A00}"
)
LEGEND = (
    ("numpy", "imports numpy and no other package"),
    ("files", "can be imported without torch"),
    ("any", "may import torch and transformers"),
)


@dataclass(eq=False)
class Place:
    """A room on its floor, or an arrow on its way past a floor.

    Args:
        room: name; empty for an arrow.
        width: of the place.
        x: of its middle.
        above: places that arrows come from, on the floor above.
        below: places that arrows go to, on the floor below.
    """

    room: str
    width: float
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)


def architecture_picture() -> str:
    """The picture as SVG."""
    arrows = {room: ends for room, ends in imported_rooms().items() if room not in NOT_DRAWN}
    arrows = reduced({room: ends - NOT_DRAWN for room, ends in arrows.items()})
    floors = _floors([sorted(rooms - NOT_DRAWN) for rooms in FLOORS if rooms - NOT_DRAWN], arrows)
    _order(floors)
    width = max(sum(place.width for place in floor) + GAP * (len(floor) - 1) for floor in floors)
    _set_x(floors, width)
    return _svg(floors, width + 2 * MARGIN, arrows)


def _floors(rooms: Sequence[Sequence[str]], arrows: Mapping[str, frozenset[str]]) -> list[list[Place]]:
    """Places by floor, from the ground up; an arrow has one on each floor between its ends."""
    floors = [[Place(room, max(80.0, 9.6 * len(room) + 26)) for room in floor] for floor in rooms]
    at = {place.room: (number, place) for number, floor in enumerate(floors) for place in floor}
    for start, ends in arrows.items():
        for end in sorted(ends):
            (top, before), (bottom, last) = at[start], at[end]
            for number in range(top - 1, bottom, -1):
                passing = Place("", 10.0)
                floors[number].append(passing)
                _connect(before, passing)
                before = passing
            _connect(before, last)
    return floors


def _connect(upper: Place, lower: Place) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _order(floors: list[list[Place]]) -> None:
    """Sort each floor so that few arrows cross: by the middle of the neighbours, from above and from below in turn."""
    best, fewest = [list(floor) for floor in floors], _crossings(floors)
    for sweep in range(24):
        is_down = sweep % 2 == 0
        for floor in reversed(floors) if is_down else floors:
            rank = {place: number for other in floors for number, place in enumerate(other)}
            size = {place: len(other) for other in floors for place in other}
            middle = {}
            for number, place in enumerate(floor):
                near = place.above if is_down else place.below
                shares = [(rank[other] + 0.5) / size[other] for other in near] or [(number + 0.5) / len(floor)]
                middle[place] = fsum(shares) / len(shares)
            floor.sort(key=lambda place: middle[place])
        crossings = _crossings(floors)
        if crossings < fewest:
            best, fewest = [list(floor) for floor in floors], crossings
    floors[:] = best


def _crossings(floors: Sequence[Sequence[Place]]) -> int:
    """Pairs of arrows that cross between two floors."""
    count = 0
    for lower, upper in pairwise(floors):
        rank = {place: number for number, place in enumerate(lower)}
        ends = [rank[end] for place in upper for end in sorted(place.below, key=lambda place: rank[place])]
        starts = [number for number, place in enumerate(upper) for _ in place.below]
        pairs = list(zip(starts, ends, strict=True))
        count += sum(a < c and b > d for a, b in pairs for c, d in pairs)
    return count


def _set_x(floors: Sequence[Sequence[Place]], width: float) -> None:
    """Put each place near its neighbours on the other floors, without overlaps and inside the width."""
    for floor in floors:
        _spread(floor, [width / 2] * len(floor), width)
    for sweep in range(40):
        for floor in floors if sweep % 2 else reversed(floors):
            wanted = []
            for place in floor:
                # Arrows are pulled straight before rooms are pulled to each other.
                near = [(other.x, 1 if other.room else 3) for other in (*place.above, *place.below)]
                near = near or [(place.x, 1)]
                wanted.append(fsum(x * pull for x, pull in near) / sum(pull for _, pull in near))
            _spread(floor, wanted, width)


def _spread(floor: Sequence[Place], wanted: Sequence[float], width: float) -> None:
    """The places as near to where they are wanted as their order and their widths allow (least squares)."""
    if not floor:
        return
    steps = [0.0]
    for left, right in pairwise(floor):
        steps.append(steps[-1] + (left.width + right.width) / 2 + GAP)
    groups: list[tuple[float, int]] = []  # (mean, size): neighbours that touch are moved as one
    for want, step in zip(wanted, steps, strict=True):
        mean, size = want - step, 1
        while groups and groups[-1][0] > mean:
            other, others = groups.pop()
            mean, size = (mean * size + other * others) / (size + others), size + others
        groups.append((mean, size))
    first, last = floor[0].width / 2, width - floor[-1].width / 2 - steps[-1]
    means = [mean for mean, size in groups for _ in range(size)]
    for place, mean, step in zip(floor, means, steps, strict=True):
        place.x = min(max(mean, first), last) + step


def _svg(floors: Sequence[Sequence[Place]], width: float, arrows: Mapping[str, frozenset[str]]) -> str:
    tops = {place: MARGIN + STOREY * number for number, floor in enumerate(reversed(floors)) for place in floor}
    height = MARGIN + STOREY * len(floors) + 22 * len(LEGEND)
    said = "; ".join(f"{room} imports {', '.join(sorted(ends))}" for room, ends in sorted(arrows.items()) if ends)
    rooms = [place for place in tops if place.room]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
            'aria-labelledby="title desc" font-family="Helvetica, Arial, sans-serif">',
            '<title id="title">The rooms of hf_dynprune and what they import</title>',
            f'<desc id="desc">{escape(said)}.</desc>',
            '<defs><marker id="h" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L10 5L0 10z" fill="#555"/></marker><style>{STYLE}</style></defs>',
            f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>',
            *(line for place in rooms for line in _arrows(place, tops)),
            *(line for place in rooms for line in _room(place, tops[place])),
            *(line for number, entry in enumerate(LEGEND) for line in _entry(height - 22 * len(LEGEND), number, entry)),
            "</svg>",
            "",
        ]
    )


def _room(place: Place, top: int) -> list[str]:
    kind = "numpy" if place.room in NUMPY_ONLY else "files" if place.room in WITHOUT_TORCH else "any"
    files = sum(room_of(module) == place.room for module in FILES)
    x, left = place.x + MARGIN, place.x + MARGIN - place.width / 2
    return [
        f'<rect x="{left:.1f}" y="{top}" width="{place.width:.1f}" height="{BOX}" rx="8" class="{kind}"/>',
        f'<text x="{x:.1f}" y="{top + 20}" class="n">{escape(place.room)}</text>',
        f'<text x="{x:.1f}" y="{top + 37}" class="f">{files} {"file" if files == 1 else "files"}</text>',
    ]


def _arrows(room: Place, tops: Mapping[Place, int]) -> list[str]:
    """The arrows that start at a room: straight down past floors, in a curve between them."""
    lines = []
    for second in room.below:
        way = [room, second]
        while not way[-1].room:
            way.append(way[-1].below[0])
        path = f"M{_port(room, room.below, second):.1f} {tops[room] + BOX}"
        for before, place in pairwise(way):
            is_end = bool(place.room)
            start = _port(room, room.below, second) if before is room else before.x + MARGIN
            x = _port(place, place.above, before) if is_end else place.x + MARGIN
            upper, lower = tops[before] + BOX, tops[place] - (2 if is_end else 0)
            middle = (upper + lower) / 2
            path += f"C{start:.1f} {middle:.0f} {x:.1f} {middle:.0f} {x:.1f} {lower}"
            path += "" if is_end else f"V{tops[place] + BOX}"
        lines.append(f'<path d="{path}" class="a" marker-end="url(#h)"/>')
    return lines


def _port(room: Place, others: Sequence[Place], other: Place) -> float:
    """Where on a room's edge the arrow to or from `other` is: they are spread over it in the order of their ends."""
    number = sorted(others, key=lambda place: place.x).index(other)
    step = min(18.0, (room.width - 24) / max(len(others) - 1, 1))
    return room.x + MARGIN + step * (number - (len(others) - 1) / 2)


def _entry(top: int, number: int, entry: tuple[str, str]) -> list[str]:
    kind, text = entry
    y = top + 22 * number
    return [
        f'<rect x="{MARGIN}" y="{y}" width="24" height="14" rx="3" class="{kind}"/>',
        f'<text x="{MARGIN + 34}" y="{y + 12}" class="l">{escape(text)}</text>',
    ]


def write_picture(root: Path) -> bool:
    """Write the picture into `docs/` under `root`; whether it was out of date."""
    file, picture = root / "docs" / PICTURE, architecture_picture()
    if file.exists() and file.read_text(encoding="utf-8") == picture:
        return False
    file.write_text(picture, encoding="utf-8")
    return True


if __name__ == "__main__":
    if write_picture(Path.cwd()):
        print(f"written: docs/{PICTURE}")
