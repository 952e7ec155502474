"""CamVid street scenes with a small SegFormer, made of the parts of `examples/semantic_segmentation.py`."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_dynprune.metrics import MeanIoU, predicted_classes
from hf_dynprune.readers.segmentation import SegmentationData, read_parquet

from .base import Places, Task, TaskData

OBJECTS = ("sign_symbol", "fence", "car", "pedestrian", "bicyclist")
CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", *OBJECTS)
NO_CLASS = 11
WHOLE = (180, 240)
CROP = (120, 160)


def example() -> ModuleType:
    """The example of segmentation, which needs kornia: loaded where a run needs it."""
    import semantic_segmentation

    return semantic_segmentation


@dataclass(frozen=True)
class SegmentationTask(Task):
    """Pixels of street scenes; the frames keep their original split."""

    @property
    def arguments(self) -> dict[str, Any]:
        """AdamW and the polynomial schedule."""
        return {
            "weight_decay": 0.01,
            "lr_scheduler_type": "polynomial",
            "warmup_steps": 0.05,
            "per_device_eval_batch_size": 20,
            "batch_eval_metrics": True,
        }

    def load(self, places: Places) -> TaskData:
        """Random crops, flips and colours for training, whole frames for the rest."""
        parts = example()
        folder = places.data / "camvid_240x180"
        settings = parts.ExampleArguments(
            crop_size=list(CROP),
            eval_size=list(WHOLE),
            scale=[0.25, 1.0],
            flip=0.5,
            colour=0.2,
            model="segformer_small",
        )
        splits = {}
        for split in ("val", "test"):
            files = {"train": str(folder / "train.parquet"), "validation": str(folder / f"{split}.parquet")}
            splits[split] = read_parquet(files, classes=CLASSES, ignored=[NO_CLASS])
        data = splits["val"]
        _, processor = parts.build_model(settings, data)
        whole = parts.Resize(data, processor)
        return TaskData(
            data.train.with_transform(parts.Augment(data, settings, processor)),
            data.validation.with_transform(whole),
            splits["test"].validation.with_transform(whole),
            collator=_stacked,
            class_counts=pixels_by_class(data),
            extra={"settings": settings, "data": data},
        )

    def build_model(self, data: TaskData, places: Places) -> PreTrainedModel:
        """0.35 million parameters, from scratch."""
        model, _ = example().build_model(data.extra["settings"], data.extra["data"])
        return model

    def measures(self, data: TaskData, log_prior: np.ndarray | None = None) -> dict[str, Any]:
        """Counts of pixels, batch by batch."""

        def classes(logits: Any, labels: Any) -> torch.Tensor:
            logits = logits[0] if isinstance(logits, tuple) else logits
            shift = 0 if log_prior is None else torch.tensor(log_prior, dtype=logits.dtype).view(-1, 1, 1)
            return predicted_classes(logits - shift, labels)

        return {
            "compute_metrics": MeanIoU(len(CLASSES)).batch_metrics,
            "preprocess_logits_for_metrics": classes,
        }


def _stacked(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def pixels_by_class(data: SegmentationData) -> np.ndarray:
    """Labelled pixels of the training frames, by class."""
    masks = (data.pair(row)[1].ravel() for row in data.train)
    return sum(np.bincount(mask[mask < len(CLASSES)], minlength=len(CLASSES)) for mask in masks)


TASKS: list[Task] = [
    SegmentationTask(
        "camvid_segmentation", "mean_iou", (1e-3, 2e-3, 4e-3), 20, 8, seeds=(0, 1, 2), weighs_classes_equally=True
    )
]
