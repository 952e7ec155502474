"""Small data laid out as the real sets are when they have been downloaded and unpacked.

    python -m tests.support.trees imagenet FOLDER [--classes 1000] [--train 2] [--val 1]
    python -m tests.support.trees ade20k FOLDER [--train 40] [--val 10]
    python -m tests.support.trees cifar10 FOLDER [--train 2000] [--val 500]     (or cifar100)

ImageNet as Kaggle's archive has it (flat `val` with its solution table), ADE20K as `ADEChallengeData2016` (palette
masks of 150 classes, 0 for none), CIFAR as the hub's parquet files. Each image set holds one grey picture, one with
four colours (CMYK), and one that is cut off. Pictures are noise around a colour of their class, so that a model can
learn from them.
"""

from __future__ import annotations

import argparse
import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = [(500, 375), (375, 500), (640, 480), (333, 500)]
CIFAR_COLUMNS = {
    "cifar10": ("plain_text", 10, ["label"]),
    "cifar100": ("cifar100", 100, ["fine_label", "coarse_label"]),
}


def colour(number: int, classes: int) -> np.ndarray:
    """RGB `[3]`, different for each class."""
    return np.array(colorsys.hsv_to_rgb(number / classes, 0.6 + 0.4 * (number % 2), 0.5 + 0.5 * (number % 3) / 2)) * 255


def noisy(base: np.ndarray, width: int, height: int, rng: np.random.Generator, grain: int = 8) -> Image.Image:
    """A picture of a colour `[3]`, or of `[height, width, 3]` colours, with noise in blocks of `grain` pixels."""
    noise = rng.normal(0, 30, (height // grain + 1, width // grain + 1, 1)).repeat(grain, 0).repeat(grain, 1)
    return Image.fromarray(np.clip(base + noise[:height, :width], 0, 255).astype(np.uint8))


def save_odd(paths: list[Path]) -> None:
    """The first of the pictures becomes grey, the second CMYK; the third is cut off."""
    grey, four, cut = paths[:3]
    for path, mode in ((grey, "L"), (four, "CMYK")):
        with Image.open(path) as picture:
            changed = picture.convert(mode)
        changed.save(path, "JPEG")
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])


def wnid(number: int) -> str:
    """The number of a noun in WordNet, as ImageNet's folders are called."""
    return f"n{1440764 + 137 * number:08d}"


def imagenet(folder: Path, classes: int = 1000, train: int = 2, val: int = 1, seed: int = 0, grain: int = 8) -> None:
    """Kaggle's archive: ILSVRC/Data/CLS-LOC/{train/<wnid>, val, test}, the names and the solution beside ILSVRC."""
    rng, images = np.random.default_rng(seed), folder / "ILSVRC" / "Data" / "CLS-LOC"
    for split in ("train", "val", "test"):
        (images / split).mkdir(parents=True)
    paths, answers = [], []
    for number in range(classes):
        (images / "train" / wnid(number)).mkdir()
        for at in range(train + val):
            width, height = SIDES[rng.integers(len(SIDES))]
            picture = noisy(colour(number, classes), width, height, rng, grain)
            if at < train:
                path = images / "train" / wnid(number) / f"{wnid(number)}_{at}.JPEG"
                paths.append(path)
            else:
                name = f"ILSVRC2012_val_{len(answers) + 1:08d}"
                path = images / "val" / f"{name}.JPEG"
                answers.append(f"{name},{wnid(number)} 10 20 {width - 10} {height - 10} ")
            picture.save(path, quality=90)
    save_odd(paths)
    names = "".join(f"{wnid(number)} thing {number}, object of kind {number}\n" for number in range(classes))
    (folder / "LOC_synset_mapping.txt").write_text(names, encoding="utf-8")
    shuffled = [answers[at] for at in rng.permutation(len(answers))]
    (folder / "LOC_val_solution.csv").write_text(
        "\n".join(["ImageId,PredictionString", *shuffled]) + "\n", encoding="utf-8"
    )


def ade20k(folder: Path, train: int = 40, val: int = 10, seed: int = 0) -> None:
    """ADEChallengeData2016: images and annotations by split, objectInfo150.txt, sceneCategories.txt."""
    rng, root = np.random.default_rng(seed), folder / "ADEChallengeData2016"
    palette = [0, 0, 0, *np.array([colour(number, 150) for number in range(150)]).astype(int).ravel().tolist()]
    number, paths, scenes = 0, [], []
    for split, name, count in (("training", "train", train), ("validation", "val", val)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for at in range(1, count + 1):
            width, height = SIDES[rng.integers(len(SIDES))]
            mask = np.zeros((height, width), np.uint8)  # a margin without a class, and stripes of four classes
            for stripe in range(4):
                left, right = (stripe * (width - 20) // 4 + 10, (stripe + 1) * (width - 20) // 4 + 10)
                mask[10:-10, left:right] = number % 150 + 1
                number += 1
            base = np.array(palette).reshape(-1, 3)[mask]
            path = root / "images" / split / f"ADE_{name}_{at:08d}.jpg"
            noisy(base, width, height, rng).save(path, quality=90)
            painted = Image.fromarray(mask)
            painted.putpalette(palette)
            painted.save(root / "annotations" / split / f"ADE_{name}_{at:08d}.png")
            scenes.append(f"ADE_{name}_{at:08d} street")
            if split == "training":
                paths.append(path)
    save_odd(paths)
    rows = [f"{number}\t0.01\t100\t10\tthing {number}, object of kind {number}" for number in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n", encoding="utf-8")
    (root / "sceneCategories.txt").write_text("\n".join(scenes) + "\n", encoding="utf-8")


def cifar(folder: Path, name: str = "cifar10", train: int = 2000, val: int = 500, seed: int = 0) -> None:
    """The hub's repository of CIFAR-10 or CIFAR-100: parquet files of PNG pictures, `img` and the labels' columns."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    rng, (config, classes, columns) = np.random.default_rng(seed), CIFAR_COLUMNS[name]
    labels = {column: classes if column != "coarse_label" else 20 for column in columns}
    kinds = {column: ClassLabel(names=[f"kind {n}" for n in range(count)]) for column, count in labels.items()}
    features = Features({"img": ImageFeature(), **kinds})
    (folder / config).mkdir(parents=True)
    for split, count in (("train", train), ("test", val)):
        rows: dict[str, list] = {"img": [], **{column: [] for column in columns}}
        for _ in range(count):
            label, stream = int(rng.integers(classes)), io.BytesIO()
            noisy(colour(label, classes), 32, 32, rng).save(stream, "PNG")
            rows["img"].append({"bytes": stream.getvalue(), "path": None})
            for column, number in labels.items():
                rows[column].append(label % number)
        Dataset.from_dict(rows, features=features).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["imagenet", "ade20k", *CIFAR_COLUMNS])
    parser.add_argument("folder", type=Path)
    for name in ("classes", "train", "val"):
        parser.add_argument(f"--{name}", type=int)
    asked = vars(parser.parse_args())
    kind, folder = asked.pop("kind"), asked.pop("folder")
    asked = {name: value for name, value in asked.items() if value is not None}
    make = {"imagenet": imagenet, "ade20k": ade20k}.get(kind)
    if make is None:
        cifar(folder, kind, **asked)
    else:
        make(folder, **asked)


if __name__ == "__main__":
    main()
