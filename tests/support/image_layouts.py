"""Layouts of image data, as archives, tools and people leave them: each is built by a function in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from tests.support.image_files import colours, encoded

TENCH, CRANE, MACHINE = "n01440764", "n02012849", "n03126707"
WNIDS = (TENCH, CRANE, MACHINE)
CLS_LOC = "ILSVRC/Data/CLS-LOC"
SYNSETS = f"{TENCH} tench, Tinca tinca\n{CRANE} crane\n{MACHINE} crane\nn99999999 café\n"


def put(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(colours(seed=seed), "jpeg"))


def archive(place: Path, below: str = CLS_LOC, train: tuple[str, ...] = WNIDS, count: int = 6) -> Path:
    """Kaggle's ImageNet: two pictures of each class to train on, a flat `val` and `test`; without its lists."""
    data = place / "imagenet" / below
    for wnid in train:
        for row in range(2):
            put(data / "train" / wnid / f"{wnid}_{row}.JPEG", row)
    for row in range(count):
        put(data / "val" / f"ILSVRC2012_val_{row + 1:08d}.JPEG", row)
        put(data / "test" / f"ILSVRC2012_test_{row + 1:08d}.JPEG", row)
    return place / "imagenet"


def solution(count: int = 6, wnids: tuple[str, ...] = WNIDS) -> str:
    """Rows in another order than the files; every second picture shows two objects of its class."""
    rows = [
        f"ILSVRC2012_val_{row + 1:08d},{' '.join([f'{wnids[row % len(wnids)]} 1 2 30 40'] * (1 + row % 2))} "
        for row in reversed(range(count))
    ]
    return "ImageId,PredictionString\n" + "\n".join(rows) + "\n"


def kaggle(lists: str = "", name: str = "", content: bytes | None = None, **options: Any) -> Callable[[Path], Path]:
    """The archive with its lists in the folder `lists`; `name` is the folder below it that the user passes."""

    def build(place: Path) -> Path:
        root = archive(place, **options)
        (root / lists / "LOC_val_solution.csv").write_bytes(solution().encode() if content is None else content)
        (root / lists / "LOC_synset_mapping.txt").write_text(SYNSETS, encoding="utf-8")
        return root / name

    return build


def spoiled(change: Callable[[Path], Any], build: Callable[[Path], Path] | None = None) -> Callable[[Path], Path]:
    """A good layout after this has been done to its folder."""

    def spoil(place: Path) -> Path:
        root = (build or pets)(place)
        change(root)
        return root

    return spoil


def pets(place: Path) -> Path:
    for split, count in (("train", 2), ("val", 1)):
        for label, kind in enumerate(("cat", "dog")):
            for row in range(count):
                put(place / "pets" / split / kind / f"{row}.jpg", 10 * label + row)
    return place / "pets"


def adding(*files: str) -> Callable[[Path], Path]:
    """Cats and dogs, and these files, which nobody wants to train on."""
    return spoiled(lambda root: [put(root / file, 7) for file in files])


def link(name: str, target: str) -> Callable[[Path], None]:
    """A link of this name below the folder; the target is relative to where the link lies."""
    return lambda root: (root / name).symlink_to(target, target_is_directory=True)


def linked_class(root: Path) -> None:
    shutil.move(root / "train" / "dog", root.parent / "dogs")
    (root / "train" / "dog").symlink_to(root.parent / "dogs")


def more_cats(root: Path) -> None:
    """A folder elsewhere, which holds a link back to itself and one into the split."""
    put(root.parent / "more" / "deep" / "a.jpg")
    (root.parent / "more" / "again").symlink_to(root.parent / "more")
    (root.parent / "more" / "back").symlink_to(root / "train")
    (root / "train" / "cat" / "more").symlink_to(root.parent / "more")


def linked_files(root: Path) -> None:
    """A subset of classes made of links to files, as people make ImageNet-100."""
    for file in sorted((root / "train").glob("*/*")):
        moved = file.rename(root.parent / f"{file.parent.name}_{file.name}")
        file.symlink_to(moved)


def linked_archive(place: Path) -> Path:
    """ILSVRC lies on another disk; the lists were unpacked beside the link."""
    root = archive(place)
    (place / "disk").mkdir()
    (root / "ILSVRC").rename(place / "disk" / "ILSVRC")
    (root / "ILSVRC").symlink_to(place / "disk" / "ILSVRC")
    (root / "LOC_val_solution.csv").write_text(solution())
    (root / "LOC_synset_mapping.txt").write_text(SYNSETS)
    return root


def devkit(root: Path) -> None:
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n171\n822\n297\n482\n")


def marked(file: Path) -> None:
    """Write a text anew, with a byte order mark before it."""
    file.write_text(file.read_text("utf-8"), "utf-8-sig")


def listed(
    form: str = "csv", below: str = "", label: str = "label", labels: Any = ("dog", "cat", "dog"), **other: Any
) -> Callable[[Path], Path]:
    """An ImageFolder of `datasets` with a file `metadata` in each split; `other` has labels of `val`, or None."""

    def build(place: Path) -> Path:
        for split, values in {"train": labels, "val": ("cat", "dog"), **other}.items():
            folder = place / "pets_listed" / split
            names = [f"{below}{number}.jpg" for number in range(len(values or ()))] or ["0.jpg"]
            for number, name in enumerate(names):
                put(folder / name, number)
            if values is not None:
                rows = datasets.Dataset.from_dict({"file_name": names, label: list(values)})
                getattr(rows, {"csv": "to_csv", "jsonl": "to_json"}.get(form, "to_parquet"))(
                    folder / f"metadata.{form}"
                )
        return place / "pets_listed"

    return build


# ---- Saved by `datasets` ----


def table(labels: list[Any], image: str = "image", label: str = "label", names: tuple[str, ...] = ()):
    """Rows with a picture and a class; with names, of class labels."""
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Dataset.from_dict({"x": labels}).features["x"]
    pictures = [colours(seed=row) for row in range(len(labels))]
    features = datasets.Features({image: datasets.Image(), label: kind})
    return datasets.Dataset.from_dict({image: pictures, label: labels}, features=features)


def saved(splits: Callable[[], dict[str, Any]] | None = None, name: str = "", **options: Any) -> Callable[[Path], Path]:
    """A `DatasetDict` that was saved; `name` is the folder below it that the user passes."""

    def build(place: Path) -> Path:
        parts = splits() if splits else {"train": table([0, 1, 1], **options), "validation": table([1, 0], **options)}
        datasets.DatasetDict(parts).save_to_disk(place / "pets_saved")
        return place / "pets_saved" / name

    return build


def one_by_one(place: Path) -> Path:
    for name, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
        table(labels, names=("cat", "dog")).save_to_disk(place / "pets_saved" / name)
    return place / "pets_saved"


def single(place: Path) -> Path:
    table([0, 1, 1]).save_to_disk(place / "single")
    return place / "single"
