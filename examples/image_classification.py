"""Train a model that classifies images, with data pruning, and compare methods.

With no arguments: scikit-learn's handwritten digits; a small ViT on full data and with InfoBatch, two seeds each, in
minutes on two CPU cores.

    python examples/image_classification.py

ImageNet from its folders (`train/<class>/*.JPEG`, `val/<class>/*.JPEG`), or from Kaggle's archive as it is unpacked,
with the settings of a recipe; flags after the recipe win over it. What is the papers' in a recipe and what is not
stands in the recipe:

    python examples/image_classification.py --recipe imagenet_r50_lars --data IMAGENET --output_dir r50_lars

Fine-tuning a pretrained model on a hub data set, or on parquet files with a column of images and one of classes:

    python examples/image_classification.py --model google/vit-base-patch16-224-in21k --data food101 \
        --learning_rate 5e-5 --num_train_epochs 5 --output_dir food

Methods against full data and against a control, full data over as many forward passes as the pruned runs take:

    python examples/image_classification.py --data DIR --num_train_epochs 20 --methods none,random,infobatch,orderdp \
        --prune_target_saving 0.4 --control_epochs 12 --seeds 0,1,2

Each run has a folder of its own in the output folder. Finished ones are not repeated, an interrupted one goes on from
its newest checkpoint (`--save_strategy epoch`). Needs transformers 5.15
or newer and the extra `examples`: `pip install -e ".[examples]"` in the repository's folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    HfArgumentParser,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessorPil,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, MixingCollator, newest_usable_checkpoint
from hf_dynprune.common.checks import check_choice, check_names, check_numbers, parameter_names, refuse_without_effect
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, default_runs, planned_runs, with_recipes
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.tables import comparison_table
from hf_dynprune.decisions.registry import as_mapping
from hf_dynprune.metrics import TopKAccuracy
from hf_dynprune.models import CifarResNetConfig
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.quickstart.models import small_vit_config
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.data_sources import described
from hf_dynprune.readers.images import ImageData, load_digit_images, load_image_data
from hf_dynprune.readers.unreadable import without_bad
from hf_dynprune.training.data_note import DataNote
from hf_dynprune.training.large_batch import OPTIMIZERS, large_batch_optimizer

try:
    from kornia.augmentation import RandomCrop, RandomErasing, RandomHorizontalFlip, RandomResizedCrop
    from kornia.augmentation.auto import RandAugment
except ImportError as error:
    raise ImportError('This example needs kornia: pip install -e ".[examples]" in the repository\'s folder.') from error

# ---- Settings ----


@dataclass
class ExampleArguments(ComparisonArguments):
    """What to train on, and what."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder with a folder per class in `train` and in `val`, Kaggle's ImageNet archive, folder of "
            "parquet files or of `save_to_disk`, or name of a hub data set. Without it: scikit-learn's handwritten "
            "digits."
        },
    )
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    label_column: str = field(default="label", metadata={"help": "Column of the classes: numbers from 0, or names."})
    check_images: str = field(
        default="files",
        metadata={
            "help": "What to look at before training. files: headers and ends of files, which finds most broken "
            "copies; all: decode every image; none."
        },
    )
    bad_files: str = field(
        default="refuse",
        metadata={"help": "refuse or skip the images that this finds."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Training images to use, drawn once, the same for all seeds."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "The same for validation."})
    model: str = field(
        default="vit_tiny",
        metadata={
            "help": "From scratch: vit_tiny, vit_b, swin_t, resnet50, cifar_resnet18, cifar_resnet50. Else: name or "
            "folder of a pretrained model."
        },
    )
    model_kwargs: str = field(default="{}", metadata={"help": "Changes to the model's config, as JSON without spaces."})
    image_size: int | None = field(
        default=None,
        metadata={"help": "Side in pixels. Default: the model's; 8 for the digits. Pretrained: as its processor says."},
    )
    crop_pct: float = field(
        default=1.0, metadata={"help": "Share of the shorter side that the central crop of evaluation has."}
    )
    image_mean: list[float] = field(
        default_factory=lambda: [0.5, 0.5, 0.5], metadata={"help": "By channel. Pretrained: as its processor says."}
    )
    image_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5], metadata={"help": "The same."})
    crop: str | None = field(
        default=None,
        metadata={
            "help": "Training crops. resized: of random size and shape; pad: padded by an eighth, shifted; none. "
            "Default: resized; pad for the digits."
        },
    )
    scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0], metadata={"help": "Least and largest share of the image, for `resized`."}
    )
    flip: float | None = field(
        default=None, metadata={"help": "Probability of a horizontal flip. Default: 0.5; 0 for the digits."}
    )
    rand_augment: list[int] = field(
        default_factory=list,
        metadata={"help": "RandAugment: operations per image, and magnitude from 1 to 29; 0 0 for none."},
    )
    erasing: float = field(default=0.0, metadata={"help": "Probability that a rectangle is erased."})
    mixup: float = field(
        default=0.0, metadata={"help": "Mix each training batch by mixup, with shares from Beta(a, a); 0: no mixup."}
    )
    cutmix: float = field(
        default=0.0,
        metadata={"help": "The same by cutmix. With both above 0, each batch is mixed in one of the two ways, by lot."},
    )
    large_batch_optimizer: str | None = field(
        default=None,
        metadata={
            "help": "lars or lamb, of pytorch_optimizer, with `optim_args` such as trust_coefficient=0.01; none."
        },
    )


RECIPES = Path(__file__).parent / "recipes"


def parse(arguments: list[str]) -> tuple[ExampleArguments, DynPruneTrainingArguments]:
    """Flags, those of a `--recipe` first; the defaults suit the digits."""
    flags = with_recipes(arguments, RECIPES)
    parser = HfArgumentParser((ExampleArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        output_dir="images_out",
        num_train_epochs=20,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=256,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # a share of the run
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        remove_unused_columns=False,  # the transforms below read them
        batch_eval_metrics=True,  # one batch at a time: nothing of an evaluation is gathered
        # So that an interrupted run ends as it would have; a selector takes no such flag.
        prune_reproducible_augmentation=not any(flag.startswith("--prune_selector") for flag in flags),
    )
    example, training = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    is_digits = example.data is None
    if is_digits and training.prune_selector is None:
        for name, value in default_runs(flags).items():
            setattr(example, name, getattr(example, name) or value)
    example.crop = example.crop or ("pad" if is_digits else "resized")
    example.flip = (0.0 if is_digits else 0.5) if example.flip is None else example.flip
    check(example, training)
    return example, training


def check(example: ExampleArguments, training: DynPruneTrainingArguments) -> None:
    """Refuse what would fail later, or have no effect."""
    if example.large_batch_optimizer == "none":
        example.large_batch_optimizer = None
    check_choice("crop", example.crop, ("resized", "pad", "none"))
    check_choice("large_batch_optimizer", example.large_batch_optimizer, (None, *OPTIMIZERS))
    check_numbers("flip", [example.flip], 0, 1)
    check_numbers("erasing", [example.erasing], 0, 1)
    check_numbers("mixup", [example.mixup], 0)
    check_numbers("cutmix", [example.cutmix], 0)
    check_numbers("crop_pct", [example.crop_pct], 0, 1, is_low_open=True)
    check_numbers("image_size", [1 if example.image_size is None else example.image_size], 1)
    check_numbers("image_mean", example.image_mean, -math.inf, count=3)
    check_numbers("image_std", example.image_std, 0, count=3, is_low_open=True)
    check_numbers("scale", example.scale, 0, 1, count=2, is_low_open=True)
    if example.scale[0] > example.scale[1]:
        raise ValueError(f"`scale` takes the least share, then the largest, got {example.scale}.")
    if len(example.rand_augment) not in (0, 2):
        raise ValueError(f"`rand_augment` takes operations and magnitude, such as 2 9, got {example.rand_augment}.")
    if any(example.rand_augment):
        check_numbers("rand_augment", example.rand_augment, 1, 29, count=2)  # kornia's magnitudes
    large_batch_optimizer(example.large_batch_optimizer, training)
    if example.model in MODELS:
        kind = MODELS[example.model][0]
    else:
        kind = type(AutoConfig.from_pretrained(example.model))
        own = ("image_size", "crop_pct", "image_mean", "image_std")
        refuse_without_effect(example, own, "on a pretrained model, whose image processor decides")
    check_names("model_kwargs", as_mapping(example.model_kwargs, "model_kwargs"), kind, parameter_names(kind))


# ---- Data ----


def load_data(example: ExampleArguments, out: Path) -> ImageData:
    """The images; those that cannot be read are refused, or listed in the output folder and left out."""
    if example.data is None:
        reader, columns, data = "digit images", {}, load_digit_images()
    else:
        reader, columns = "images", {"image_column": example.image_column, "label_column": example.label_column}
        data = load_image_data(example.data, **columns)
    drawn = data.subset(example.max_train_samples, example.max_eval_samples)
    out.mkdir(parents=True, exist_ok=True)
    good, bad = without_bad(drawn, example.check_images, example.bad_files, shared=out / "checked_images.json")
    if int(os.environ.get("LOCAL_RANK", 0)) != 0:
        return good
    if bad:
        (out / "bad_images.txt").write_text("\n".join(bad) + "\n", encoding="utf-8")
        print(f"{len(bad):,} images cannot be read and are left out, such as {bad[0]}; see {out / 'bad_images.txt'}")
    settings = columns | {"max_train_samples": example.max_train_samples}
    before = drawn.train if bad else None
    return dataclasses.replace(good, source=described(reader, example.data, good.train, settings, before))


class Prepare:
    """Rows to images as the image processor makes them: the whole image, or its centre."""

    def __init__(self, data: ImageData, processor: Any) -> None:
        self.data = data
        self.processor = processor
        black, white = (self.pixels([np.full((256, 256, 3), value, np.uint8)])[0] for value in (0, 255))
        self.size = tuple(black.shape[-2:])
        y, x = self.size[0] // 2, self.size[1] // 2  # at the edge there may be padding
        self.offset, self.slope = black[:, y : y + 1, x : x + 1], (white - black)[:, y : y + 1, x : x + 1]
        self.flips_channels = bool(getattr(processor, "do_flip_channel_order", False))

    def pixels(self, pictures: list[Any], **options: Any) -> list[torch.Tensor]:
        """`[C, H, W]` of pictures `[H, W, C]`."""
        # Said, since an image of three pixels' width could be taken for one whose channels come first.
        options |= {"input_data_format": "channels_last", "return_tensors": "pt"}
        return [self.processor(images=[np.asarray(image)], **options)["pixel_values"][0] for image in pictures]

    def pictures(self, rows: dict[str, list[Any]]) -> list[Any]:
        """uint8 RGB `[H, W, 3]`."""
        return [self.data.picture(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pixels = self.pixels(self.pictures(rows))
        if any(image.shape[-2:] != self.size for image in pixels):
            raise ValueError(
                f"{type(self.processor).__name__} makes images of several sizes: one with height and width, or with a "
                "central crop, is needed."
            )
        return {"pixel_values": pixels, "labels": rows["label"]}


class SmoothCrop(RandomResizedCrop):
    """Crops of random size and shape, shrunk with antialiasing as evaluation images are; kornia's own are not."""

    def apply_transform(self, images: torch.Tensor, params: Any, flags: Any, transform: Any = None) -> torch.Tensor:
        """`[B, C, *size]` of `[B, C, H, W]`: the box that was drawn for each, resized."""
        crops = []
        for image, corners in zip(images, params["src"].long().tolist(), strict=True):
            (left, top), _, (right, bottom), _ = corners  # the last pixels belong to the box
            box = image[None, :, top : bottom + 1, left : right + 1]
            crops.append(F.interpolate(box, flags["size"], mode="bilinear", antialias=True))
        return torch.cat(crops)


class Augment(Prepare):
    """Rows to random crops, flips and other changes, brought to the processor's size, range, mean and deviation.

    Draws from torch's and Python's global generators, which `prune_reproducible_augmentation` makes a function of seed
    and batch.
    """

    def __init__(self, data: ImageData, example: ExampleArguments, processor: Any) -> None:
        super().__init__(data, processor)
        self.resized = SmoothCrop(self.size, scale=tuple(example.scale)) if example.crop == "resized" else None
        probe = torch.arange(3 * self.size[0] * self.size[1]).reshape(3, *self.size).remainder(251).to(torch.uint8)
        self.keeps_size = torch.equal(self.fitted(probe), probe)  # not where an image of the size is cropped as others
        side = max(self.size) // 8
        self.changes: list[torch.nn.Module] = []
        if example.crop == "pad":
            self.changes.append(RandomCrop(self.size, padding=side, padding_mode="reflect"))
        if example.flip:
            self.changes.append(RandomHorizontalFlip(p=example.flip))
        self.each = RandAugment(*example.rand_augment) if any(example.rand_augment) else None
        self.erase = RandomErasing(p=example.erasing) if example.erasing else None

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = self.cropped(self.pictures(rows))
        for change in self.changes:
            images = change(images)
        if self.each is not None:
            images = torch.cat([self.each(image[None]) for image in images]).clamp(0, 1)  # other operations for each
        images = images.flip(1) if self.flips_channels else images
        images = images * self.slope + self.offset
        if self.erase is not None:
            images = self.erase(images)
        return {"pixel_values": list(images), "labels": rows["label"]}

    def cropped(self, pictures: list[Any]) -> torch.Tensor:
        """`[B, 3, H, W]` in [0, 1], of the processor's size."""
        images = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
        if self.resized is None:
            fitting = [self.keeps_size and image.shape[-2:] == self.size for image in images]
            return torch.stack([i if fits else self.fitted(i) for i, fits in zip(images, fitting, strict=True)]) / 255
        # Each image has draws of its own either way; images of one size are faster together.
        together = len(images) if len({image.shape for image in images}) == 1 else 1
        parts = [torch.stack(images[start : start + together]) for start in range(0, len(images), together)]
        return torch.cat([self.resized(part / 255) for part in parts])

    def fitted(self, image: torch.Tensor) -> torch.Tensor:
        """Resized and cropped as for evaluation, values as they are."""
        whole = {"do_rescale": False, "do_normalize": False}
        fitted = self.pixels([image.permute(1, 2, 0).numpy()], **whole)[0]
        return fitted.flip(0) if self.flips_channels else fitted


# ---- Models ----


MODELS: dict[str, tuple[type[PreTrainedConfig], Callable[[int], dict[str, Any]], int]] = {
    "vit_tiny": (ViTConfig, lambda size: small_vit_config(3, size, size).to_dict(), 32),
    "vit_b": (ViTConfig, lambda size: {"image_size": size}, 224),
    "swin_t": (SwinConfig, lambda size: {"image_size": size}, 224),
    "resnet50": (ResNetConfig, lambda size: {}, 224),
    "cifar_resnet18": (CifarResNetConfig, lambda size: {}, 32),
    "cifar_resnet50": (CifarResNetConfig, lambda size: {"depths": (3, 4, 6, 3), "layer_type": "bottleneck"}, 32),
}
"""Config, its parameters by side of the images, usual side; transformers' defaults are ViT-B/16, Swin-T, ResNet-50."""


def build_model(example: ExampleArguments, data: ImageData) -> tuple[PreTrainedModel, Any]:
    """The model, and the image processor that goes with it."""
    labels = {"id2label": data.id2label, "label2id": data.label2id}
    changes = as_mapping(example.model_kwargs, "model_kwargs")
    if example.model not in MODELS:
        model = AutoModelForImageClassification.from_pretrained(
            example.model, **labels, **changes, ignore_mismatched_sizes=True
        )
        return model, AutoImageProcessor.from_pretrained(example.model)
    kind, options, size = MODELS[example.model]
    size = example.image_size or (8 if example.data is None else size)
    config = kind.from_dict(options(size) | changes | labels)
    whole = round(size / example.crop_pct)
    processor = ViTImageProcessorPil(
        size={"height": size, "width": size} if whole == size else {"shortest_edge": whole},
        do_center_crop=whole != size,
        crop_size={"height": size, "width": size},
        image_mean=example.image_mean,
        image_std=example.image_std,
    )
    return AutoModelForImageClassification.from_config(config), processor


# ---- Runs ----


def train(example: ExampleArguments, run: PlannedRun, data: ImageData) -> RunResult:
    """Train and evaluate."""
    args = run.args
    set_seed(args.seed)  # the same initial weights for every method
    model, processor = build_model(example, data)
    metric = TopKAccuracy((1, 5) if len(data.classes) > 5 else (1,))
    is_mixed = example.mixup > 0 or example.cutmix > 0
    trainer = DynPruneTrainer(
        model=model,
        args=args,
        train_dataset=data.train.with_transform(Augment(data, example, processor)),
        eval_dataset=data.validation.with_transform(Prepare(data, processor)),
        data_collator=MixingCollator(mixup=example.mixup, cutmix=example.cutmix) if is_mixed else None,
        processing_class=processor,
        compute_metrics=metric.batch_metrics,
        preprocess_logits_for_metrics=metric.top_classes,
        optimizer_cls_and_kwargs=large_batch_optimizer(example.large_batch_optimizer, args),
        callbacks=[DataNote(data.source)],
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}")
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    metrics = trainer.evaluate()
    if args.save_strategy != "no":
        trainer.save_model()
    return RunResult.of(run, metrics, trainer.pruning_history, trainer.state.epoch)


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then print a table; it is in the output folder, with the results as JSON."""
    example, training = parse(arguments)
    runs, out = planned_runs(example, training), Path(training.output_dir)
    with training.main_process_first():
        data = load_data(example, out)
    print(f"{len(data.train):,} training and {len(data.validation):,} validation images, {len(data.classes)} classes")
    splits = {"train": data.train, "validation": data.validation}
    results = run_all(runs, example, splits, lambda run: train(example, run, data))
    if training.process_index == 0:
        columns = {"accuracy": "top-1 %"} | ({"top_5_accuracy": "top-5 %"} if len(data.classes) > 5 else {})
        text = comparison_table(results, columns, "against full data, points of top-1") + "\n"
        (out / "results.md").write_text(text, encoding="utf-8")
        (out / "results.json").write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
        print(f"\n{text}\nresults.md and results.json are in {out}/")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
