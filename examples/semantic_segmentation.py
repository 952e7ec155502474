"""Train a model that classifies pixels, with data pruning, and compare methods.

With no arguments: scenes of handwritten digits, made on the spot; a small SegFormer on full data and with InfoBatch,
two seeds each, in a few minutes on two CPU cores.

    python examples/semantic_segmentation.py

ADE20K in its original folder, with schedule, batch and crop of the SegFormer paper, from scratch unless `--model` names
a pretrained one (what differs is in docs/segmentation.md); flags after the recipe win over it:

    python examples/semantic_segmentation.py --recipe ade20k_segformer_b0 \
        --data ADEChallengeData2016 --prune_method infobatch --output_dir segformer_b0_infobatch

Parquet files or a hub data set with a column of images and one of masks, or own data laid out like ADE20K:

    python examples/semantic_segmentation.py --data DIR --classes road,car,sky --ignored 3 --crop_size 120 160

Each run has a folder of its own in the output folder. Finished ones are not repeated, an interrupted one goes on from
its newest checkpoint (`--save_strategy epoch`). Needs transformers 5.15
or newer and the extra `examples`: `pip install -e ".[examples]"` in the repository's folder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    HfArgumentParser,
    PreTrainedModel,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    TrainerCallback,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    set_seed,
)

from hf_dynprune import DynPruneTrainer, DynPruneTrainingArguments, newest_usable_checkpoint
from hf_dynprune.common.charts import draw_if_possible, why_no_pictures
from hf_dynprune.compare.plan import ComparisonArguments, PlannedRun, default_runs, planned_runs, with_recipes
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.segmentation import Example, draw_examples, report
from hf_dynprune.losses.segmentation import pixel_losses
from hf_dynprune.metrics import MeanIoU, predicted_classes
from hf_dynprune.quickstart.example_runs import run_all
from hf_dynprune.quickstart.progress import show_progress
from hf_dynprune.readers.data_sources import described
from hf_dynprune.readers.segmentation import SegmentationData, load_digit_scenes, load_segmentation_data
from hf_dynprune.training.data_note import DataNote

try:
    from kornia.augmentation import (
        AugmentationSequential,
        ColorJiggle,
        Normalize,
        RandomHorizontalFlip,
        RandomResizedCrop,
    )
except ImportError as error:
    raise ImportError('This example needs kornia: pip install -e ".[examples]" in the repository\'s folder.') from error

# ---- Settings ----


@dataclass
class ExampleArguments(ComparisonArguments):
    """What to train on, and what."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder of ADE20K (ADEChallengeData2016), own data in such folders (with --classes), folder of "
            "parquet files, or name of a hub data set. "
            "Without it: scenes of handwritten digits, made on the spot."
        },
    )
    image_column: str = field(default="image", metadata={"help": "Column of the images."})
    annotation_column: str = field(default="annotation", metadata={"help": "Column of the masks."})
    classes: str | None = field(
        default=None,
        metadata={
            "help": "Class names by id, separated by commas, or their number. ADE20K has its own; other "
            "data in its folders need them."
        },
    )
    ignored: str = field(default="", metadata={"help": "Mask values that are no class, separated by commas."})
    reduce_labels: bool = field(default=False, metadata={"help": "0 means no class, the classes begin at 1."})
    bad_files: str = field(
        default="refuse",
        metadata={"help": "refuse or skip files that cannot be read, in a folder laid out like ADE20K's."},
    )
    model: str = field(
        default="segformer_tiny",
        metadata={
            "help": "From scratch: segformer_tiny, segformer_small, segformer_b0, upernet_r50. Else: name or folder of "
            "a pretrained model."
        },
    )
    crop_size: list[int] = field(default_factory=lambda: [32, 32], metadata={"help": "Training crops: height, width."})
    eval_size: list[int] = field(default_factory=lambda: [32, 32], metadata={"help": "Evaluation: height, width."})
    scale: list[float] = field(
        default_factory=lambda: [0.8, 1.0], metadata={"help": "Least and largest share of the image in a crop."}
    )
    flip: float = field(default=0.0, metadata={"help": "Probability of a horizontal flip."})
    colour: float = field(default=0.1, metadata={"help": "Strength of random brightness, contrast and saturation."})


RECIPES = Path(__file__).parent / "recipes"


def parse(arguments: list[str]) -> tuple[ExampleArguments, DynPruneTrainingArguments]:
    """Flags, those of a `--recipe` first; the defaults suit the digit scenes."""
    flags = with_recipes(arguments, RECIPES)
    parser = HfArgumentParser((ExampleArguments, DynPruneTrainingArguments))
    parser.set_defaults(
        output_dir="segmentation_out",
        num_train_epochs=16,
        per_device_train_batch_size=10,
        per_device_eval_batch_size=50,
        learning_rate=6e-3,
        lr_scheduler_type="polynomial",
        warmup_steps=0.05,  # a share of the run
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
    if example.data is None and training.prune_selector is None:
        for name, value in default_runs(flags).items():
            setattr(example, name, getattr(example, name) or value)
    return example, training


# ---- Data ----


def load_data(example: ExampleArguments) -> SegmentationData:
    """The images and masks."""
    if example.data is None:
        reader: str = "digit scenes"
        settings: dict[str, Any] = {"train_size": 600, "validation_size": 200, "size": 32, "digits": 3}
        data = load_digit_scenes(**settings)
    else:
        names = example.classes.split(",") if example.classes else None
        reader, settings = (
            "segmentation",
            {
                "image_column": example.image_column,
                "annotation_column": example.annotation_column,
                "classes": int(names[0]) if names and len(names) == 1 and names[0].isdigit() else names,
                "ignored": [int(value) for value in example.ignored.split(",") if value],
                "reduce_labels": example.reduce_labels,
                "bad_files": example.bad_files,
            },
        )
        data = load_segmentation_data(example.data, **settings)
    return dataclasses.replace(data, source=described(reader, example.data, data.train, settings))


def pairs(data: SegmentationData, rows: dict[str, list[Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 `[H, W, 3]` and class ids `[H, W]` of a batch of rows."""
    return [data.pair(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]


class Augment:
    """Rows to random crops, flips and colours: the same crop of image and mask, the mask by nearest neighbour.

    Draws from torch's global generator, which `prune_reproducible_augmentation` makes a function of seed and batch.
    """

    def __init__(self, data: SegmentationData, example: ExampleArguments, processor: Any) -> None:
        self.data = data
        strength = example.colour
        has_norm = getattr(processor, "do_normalize", True)
        mean, std = (processor.image_mean, processor.image_std) if has_norm else ([0.0] * 3, [1.0] * 3)
        self.flips_channels = bool(getattr(processor, "do_flip_channel_order", False))
        self.both = AugmentationSequential(
            RandomResizedCrop(tuple(example.crop_size), scale=tuple(example.scale), ratio=(0.75, 1.33)),
            RandomHorizontalFlip(p=example.flip),
            ColorJiggle(strength, strength, strength, 0.0, p=1.0 if strength else 0.0),
            Normalize(torch.tensor(mean), torch.tensor(std)),
            data_keys=["input", "mask"],
        )

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        found = pairs(self.data, rows)
        images = [torch.from_numpy(image).permute(2, 0, 1) / 255 for image, _ in found]
        masks = [torch.from_numpy(ids)[None].float() for _, ids in found]
        # Each image has draws of its own either way; images of one size are faster together.
        together = len(found) if len({image.shape for image in images}) == 1 else 1
        crops, classes = [], []
        for start in range(0, len(found), together):
            part = slice(start, start + together)
            crop, mask = self.both(torch.stack(images[part]), torch.stack(masks[part]))
            crops += list(crop.flip(1) if self.flips_channels else crop)
            classes += list(mask[:, 0].long())
        return {"pixel_values": crops, "labels": classes}


class Resize:
    """Rows to whole images and masks of one size, as the image processor prepares them."""

    def __init__(self, data: SegmentationData, processor: Any) -> None:
        self.data = data
        self.processor = processor
        self.size = torch.Size((processor.size["height"], processor.size["width"]))

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        found = pairs(self.data, rows)
        batch = self.processor(
            images=[image for image, _ in found],
            segmentation_maps=[ids.astype(np.uint8) for _, ids in found],
            return_tensors="pt",
        )
        if batch["pixel_values"].shape[-2:] != batch["labels"].shape[-2:] or batch["labels"].shape[-2:] != self.size:
            raise ValueError(
                f"{type(self.processor).__name__} makes images {tuple(batch['pixel_values'].shape[-2:])} and masks "
                f"{tuple(batch['labels'].shape[-2:])} where `eval_size` is {tuple(self.size)}: choose another "
                "`eval_size`, such as a multiple of 32."
            )
        return {"pixel_values": list(batch["pixel_values"]), "labels": list(batch["labels"].long())}


# ---- Models ----


def segformer_tiny(**labels: Any) -> PreTrainedModel:
    """0.22 million parameters, for small images: each stage halves the image, and the first weights are not as small
    as the stock ones, which suit wide models.
    """
    widths = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 0], "num_attention_heads": [1, 1, 2, 3]}
    quiet = {"initializer_range": 0.1, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
    return SegformerForSemanticSegmentation(
        SegformerConfig(**widths, **quiet, strides=[2, 2, 2, 2], decoder_hidden_size=48, **labels)
    )


def segformer_small(**labels: Any) -> PreTrainedModel:
    """0.35 million parameters, strides as in the paper."""
    widths = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 3]}
    quiet = {"initializer_range": 0.1, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
    return SegformerForSemanticSegmentation(SegformerConfig(**widths, **quiet, decoder_hidden_size=64, **labels))


def segformer_b0(**labels: Any) -> PreTrainedModel:
    """The paper's smallest: the defaults of its config."""
    return SegformerForSemanticSegmentation(SegformerConfig(**labels))


def upernet_r50(**labels: Any) -> PreTrainedModel:
    """UPerNet on a ResNet-50, with its auxiliary head on the third stage."""
    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, auxiliary_in_channels=1024, **labels))


MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    build.__name__: build for build in (segformer_tiny, segformer_small, segformer_b0, upernet_r50)
}


def build_model(example: ExampleArguments, data: SegmentationData) -> tuple[PreTrainedModel, Any]:
    """The model, and the image processor that goes with it."""
    size = {"height": example.eval_size[0], "width": example.eval_size[1]}
    labels = {"id2label": data.id2label, "label2id": data.label2id}
    if example.model in MODELS:
        # Class ids are made on reading, so the processor has none to shift.
        return MODELS[example.model](**labels), SegformerImageProcessorPil(size=size, do_reduce_labels=False)
    # Whole images at one size: a processor's own centre crop would evaluate on a part, and fill masks with class 0.
    whole = {"size": size, "do_resize": True, "do_center_crop": False, "do_pad": False, "do_reduce_labels": False}
    processor = AutoImageProcessor.from_pretrained(example.model, **whole)
    model = AutoModelForSemanticSegmentation.from_pretrained(example.model, **labels, ignore_mismatched_sizes=True)
    return model, processor


# ---- One run ----


class KeptCounts(TrainerCallback):
    """In how many of the epochs seen each training image was kept; after a resume, of those since then."""

    def __init__(self, size: int) -> None:
        self.counts = np.zeros(size, np.int64)
        self.epochs = 0
        self.trainer: DynPruneTrainer | None = None

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the epoch's plan."""
        plan = self.trainer.pruning_plan
        if plan is not None:  # with a selector there is none
            self.counts[plan.kept_indices] += 1
            self.epochs += 1


def train(example: ExampleArguments, run: PlannedRun, data: SegmentationData, picture: Path | None) -> RunResult:
    """Train, evaluate, and draw what the model makes of the most and least kept images."""
    args = run.args
    set_seed(args.seed)  # the same initial weights for every method
    model, processor = build_model(example, data)
    kept = KeptCounts(len(data.train))
    resize = Resize(data, processor)
    trainer = kept.trainer = DynPruneTrainer(
        model=model,
        args=args,
        train_dataset=data.train.with_transform(Augment(data, example, processor)),
        eval_dataset=data.validation.with_transform(resize),
        processing_class=processor,
        compute_metrics=MeanIoU(len(data.classes), class_names=data.classes).batch_metrics,
        preprocess_logits_for_metrics=predicted_classes,
        callbacks=[kept, DataNote(data.source)],
    )
    show_progress(trainer, f"{run.name}, seed {args.seed}", "mean_iou")
    trainer.train(resume_from_checkpoint=newest_usable_checkpoint(args.output_dir))
    metrics = trainer.evaluate()
    if args.save_strategy != "no":
        trainer.save_model()
    if picture is not None:
        draw_if_possible(picture, lambda file: draw_examples(look_at(model, data, resize, kept), data.classes, file))
    return RunResult.of(run, metrics, trainer.pruning_history, trainer.state.epoch)


@torch.no_grad()
def look_at(model: PreTrainedModel, data: SegmentationData, resize: Resize, kept: KeptCounts) -> list[Example]:
    """The three training images kept most often and the three kept least, as the model sees them."""
    order = np.argsort(-kept.counts, kind="stable")
    chosen = [int(row) for row in (*order[:3], *order[-3:])]
    model.eval()
    examples = []
    for row in chosen:
        batch = {key: torch.stack(value).to(model.device) for key, value in resize(data.train[[row]]).items()}
        logits = model(pixel_values=batch["pixel_values"]).logits
        examples.append(
            Example(
                title=f"kept in {kept.counts[row]} of {kept.epochs} epochs",
                image=data.pair(data.train[row])[0],
                truth=batch["labels"][0].cpu().numpy(),
                prediction=predicted_classes(logits, batch["labels"])[0].cpu().numpy(),
                loss=pixel_losses(logits, batch["labels"])[0].float().cpu().numpy(),
            )
        )
    return examples


# ---- All runs ----


def main(arguments: list[str]) -> list[RunResult]:
    """Run what has no result yet, then print tables; they and a picture per method are in the output folder."""
    example, training = parse(arguments)
    runs, out, is_first = planned_runs(example, training), Path(training.output_dir), training.process_index == 0
    data = load_data(example)
    print(f"{len(data.train)} training and {len(data.validation)} validation images, {len(data.classes)} classes")

    def train_and_draw(run: PlannedRun) -> RunResult:
        is_drawn = is_first and run.args.seed == runs[0].args.seed
        return train(example, run, data, out / f"examples_{run.name.replace(' ', '_')}.png" if is_drawn else None)

    results = run_all(runs, example, {"train": data.train, "validation": data.validation}, train_and_draw)
    if is_first:
        text = report(results, data.classes) + (f"\n{why}\n" if (why := why_no_pictures()) else "")
        (out / "results.md").write_text(text, encoding="utf-8")
        print(f"\n{text}\nWritten to {out}/: results.md{'' if why else ' and the pictures'}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
