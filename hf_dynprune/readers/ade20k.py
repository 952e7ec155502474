"""ADE20K SceneParsing in its original folders: the 150 names, the pairs of files, and what can be wrong with them.

    ADEChallengeData2016/
      images/training/*.jpg          annotations/training/*.png
      images/validation/*.jpg        annotations/validation/*.png
      objectInfo150.txt

Images may have any ending of `walks.ENDINGS`, in upper or lower case, and masks those of `MASK_ENDINGS`.

Only file headers are read here. `segmentation.read_ade20k` makes data sets of the result.

Source: Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import escape
from pathlib import Path

from tqdm.auto import tqdm

from ..common.files import is_no_file
from ..common.logs import logger
from .class_list import read_class_list
from .masks import MASK_MODES
from .pictures import check_end, unreadable
from .sources import contents, say_devices
from .walks import ENDINGS

RELEASE = "ADEChallengeData2016"
"""Name of the folder that the SceneParsing release (150 classes) unpacks to."""

NEEDED = f"the SceneParsing release (150 classes, {RELEASE}) is needed"

NAMES = tuple(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
    door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
    field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
    signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
    stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
    toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television,
    airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van,
    ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
    tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake,
    dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen,
    plate, monitor, bulletin board, shower, radiator, glass, clock, flag
    """.replace("\n    ", " ")
    .strip()
    .split(", ")
)
"""First synonyms of the classes 1 to 150 of the masks, in that order."""

MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
"""Endings of annotations: formats that keep every value, unlike JPEG."""

MANY_FILES = 1000
"""From this number of images on, a progress bar is shown."""

_ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""


def looks_like(folder: Path) -> bool:
    """Whether the folder, or `ADEChallengeData2016` in it, holds images or annotations: then it is read as ADE20K."""
    return any((place / part).is_dir() for place in _places(folder) for part in ("images", "annotations"))


def find_root(folder: Path) -> Path:
    """The folder that holds `images` and `annotations`: the given one or its child `ADEChallengeData2016`.

    Raises:
        ValueError: neither of them does.
    """
    parts = [f"{kind}/{split}" for kind in ("images", "annotations") for split in ("training", "validation")]
    for place in _places(folder):
        missing = [part for part in parts if not (place / part).is_dir()]
        if not missing:
            return place
        if len(missing) < len(parts):
            raise ValueError(
                f"{place} is no complete ADE20K folder, it lacks {', '.join(missing)}.{_full_scenes(place)}"
            )
    raise ValueError(
        f"{folder} is no ADE20K folder: looked there and in {RELEASE} below it for {', '.join(parts)}, "
        f"found {contents(folder)}.{_full_scenes(folder)}"
    )


def class_names(root: Path) -> tuple[str, ...]:
    """150 different names: the first synonyms in `objectInfo150.txt` (or `.csv`) where that file is, else `NAMES`.

    What copies of the file may look like says `class_list`.

    Raises:
        ValueError: its columns are not found, or it has other classes than 1 to 150.
    """
    file = class_list_file(root)
    return NAMES if file is None else read_class_list(file, len(NAMES))


def class_list_file(root: Path) -> Path | None:
    """`objectInfo150.txt` or `.csv` in the folder, whatever the case of its name; None without one."""
    files = {file.name.lower(): file for file in sorted(root.iterdir()) if file.is_file()}
    return files.get("objectinfo150.txt") or files.get("objectinfo150.csv")


def says_so(root: Path) -> bool:
    """Whether anything but the layout says that the data are ADE20K's: its class list, or a name as in the release."""
    if class_list_file(root) is not None or root.name == RELEASE:
        return True
    return any(file.name.startswith("ADE_") for file in (root / "images" / "training").iterdir())


class UnreadableFile(ValueError):
    """A picture or annotation that is no image, or is cut off."""


def pairs(root: Path, split: str, skips_bad: bool = False) -> tuple[list[tuple[Path, Path]], list[bool]]:
    """The files of a split by name, as (image, annotation), and which images carry an EXIF orientation.

    The root folder holds `images` and `annotations`, and the split is `"training"` or `"validation"`. With
    `skips_bad`, pairs of which a file cannot be read are left out, and a warning names their number and the first.

    Raises:
        ValueError: no images, an image without annotation or the reverse, a file whose header cannot be read, an
            annotation with several channels, or another size than its image's. The message names the file.
    """
    images, masks = _files(root / "images" / split, ENDINGS), _files(root / "annotations" / split, MASK_ENDINGS)
    _without_devices(images, masks)
    _check_partners(images, masks, root, split)
    found = [(images[stem], masks[stem]) for stem in sorted(images)]
    with ThreadPoolExecutor(8) as pool:  # for disks that answer late; where all is cached, one thread is as fast
        checks = pool.map(partial(_checked_header, skips_bad=skips_bad), found)
        seen = list(tqdm(checks, total=len(found), desc=f"checking {split} images", disable=len(found) < MANY_FILES))
    bad = [turned for turned in seen if isinstance(turned, UnreadableFile)]
    if len(bad) == len(seen):
        raise ValueError(str(bad[0]))
    if bad:
        logger.warning("%d of %d %s images are left out: %s", len(bad), len(seen), split, bad[0])
    good = [(pair, turned) for pair, turned in zip(found, seen, strict=True) if not isinstance(turned, UnreadableFile)]
    return [pair for pair, _ in good], [turned for _, turned in good]


def upright_bytes(file: Path) -> bytes:
    """A JPEG file's bytes with its orientation made unknown, so that no reader turns the picture.

    Raises:
        ValueError: the orientation is kept where JPEG files do not keep it.
    """
    from io import BytesIO

    from PIL import Image

    content = file.read_bytes()
    for marker in (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"):
        content = content.replace(marker, marker.swapcase(), 1)
    with Image.open(BytesIO(content)) as picture:
        if _ORIENTATION in picture.getexif():
            raise ValueError(
                f"{file} tells readers to turn it, its annotation is not turned: save it without EXIF data."
            )
    return content


def _places(folder: Path) -> tuple[Path, Path]:
    return folder, folder / RELEASE


def _full_scenes(place: Path) -> str:
    """What to say where the folder is the full release, whose annotations are colour images beside the pictures."""
    if next((place / "images").rglob("*_seg.png"), None) is None:
        return ""
    return f" Its _seg.png files are those of the full ADE20K: {NEEDED}."


def _files(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """The folder's files with these endings, by their names without them; hidden files are left out.

    Raises:
        ValueError: two of them differ in their endings alone.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in endings and not file.name.startswith("."):
            if file.stem in found:
                raise ValueError(
                    f"{file} and {found[file.stem].name} beside it have one name but for the ending: keep one of them."
                )
            found[file.stem] = file
    return found


def _without_devices(images: dict[str, Path], masks: dict[str, Path]) -> None:
    """Leave out pairs of which one is a named pipe, a socket or a device, and say so."""
    pairs = [(stem, file) for files in (images, masks) for stem, file in files.items() if is_no_file(file)]
    for stem, _ in pairs:
        images.pop(stem, None)
        masks.pop(stem, None)
    if pairs:
        say_devices([file for _, file in pairs], pairs[0][1].parent)


def _check_partners(images: dict[str, Path], masks: dict[str, Path], root: Path, split: str) -> None:
    if not images and not masks:
        raise ValueError(
            f"{root / 'images' / split} holds no .jpg files and {root / 'annotations' / split} no .png files, found "
            f"{contents(root / 'images' / split)}.{_full_scenes(root)}"
        )
    for these, those, what, lacks in ((images, masks, "image", "annotation"), (masks, images, "annotation", "image")):
        alone = sorted(these.keys() - those.keys())
        if alone:
            more = f" (and {len(alone) - 1:,} more)" if len(alone) > 1 else ""
            place = root / f"{lacks}s" / split
            other = next(
                (f" {each.name} there is of another kind." for each in place.glob(f"{escape(alone[0])}.*")), ""
            )
            raise ValueError(
                f"{these[alone[0]]}{more} has no {lacks} of that name under {place}: each {what} "
                f"needs one.{other} Copy the missing files, or take these away."
            )


def _checked_header(pair: Sequence[Path], skips_bad: bool) -> bool | UnreadableFile:
    """Whether the image carries an orientation, from the headers of image and annotation; or that one has none."""
    from PIL import Image

    try:
        current = pair[0]
        check_end(current)
        with Image.open(current) as picture:
            size = picture.size
            turned = bool({"exif", "xmp"} & picture.info.keys()) and picture.getexif().get(_ORIENTATION, 1) != 1
        current = pair[1]
        check_end(current)
        with Image.open(current) as mask:
            mask_size, mode = mask.size, mask.mode
    except unreadable() as error:
        bad = UnreadableFile(f"{current} cannot be read as an image, it may be cut off: copy it anew. ({error})")
        if skips_bad:
            return bad
        raise ValueError(str(bad)) from error
    if mode not in MASK_MODES:
        raise ValueError(
            f"{pair[1]} is an image of mode {mode}: an annotation has one channel, 0 to 150. The full ADE20K has "
            f"annotations in colour: {NEEDED}."
        )
    if size != mask_size:
        raise ValueError(
            f"{pair[1]} is {mask_size[0]} x {mask_size[1]} pixels, its image {pair[0]} {size[0]} x {size[1]}: both "
            f"must be of one size. Copy both anew from one release."
        )
    return turned
