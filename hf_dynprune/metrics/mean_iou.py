"""Mean intersection over union of semantic segmentation, from a confusion matrix that is all that is kept.

With n_ij the number of labelled pixels of class i that were predicted as class j, over the whole data set, and
t_i = sum_j n_ij:

    IoU_i = n_ii / (t_i + sum_j n_ji - n_ii)     mean_iou         = mean of IoU_i over the classes there are
    accuracy_i = n_ii / t_i                      mean_accuracy    = mean of accuracy_i over the classes labelled
                                                 overall_accuracy = sum_i n_ii / sum_i t_i

A class in neither labels nor predictions has no IoU, and one without a labelled pixel no accuracy: both are NaN in the
lists per class and left out of the means. A class that is predicted and never labelled has IoU 0 and counts. The means
are those of the data set, not of images. Pixels of `ignore_index` are left out, whatever was predicted there. A pixel
with a NaN among its logits is predicted as no class: it counts as wrong, in t_i, and in no n_ij.

In the Trainer, with constant memory (`batch_eval_metrics=True`) and without gathering the logits:

    metric = MeanIoU(num_labels=model.config.num_labels)
    Trainer(..., compute_metrics=metric.batch_metrics, preprocess_logits_for_metrics=predicted_classes)

Either of the two settings may be left out: the result is the same.

Source: Long, Shelhamer, Darrell: Fully convolutional networks for semantic segmentation. CVPR 2015, arXiv:1411.4038,
section 5, "Metrics" (equations without numbers): pixel accuracy, mean accuracy and mean IU, for classes that all occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..common.checks import is_whole
from ..common.words import counted
from .batches import CountingMetric, first_output

_INPUTS = """
Args:
    predictions: integer class ids `[B, H, W]`, or floating-point logits `[B, C, h, w]`, which are brought to the size
        of the references and of which the largest counts (a tie goes to the lower id). Arrays, tensors on any device,
        or lists of such maps of one image each, which may differ in size.
    references: integer class ids `[B, H, W]`.
Returns:
    {"mean_iou", "mean_accuracy", "overall_accuracy": float in [0, 1], "per_category_iou", "per_category_accuracy": list
    with an entry per class, NaN for an absent one}
"""


class MeanIoU(CountingMetric):
    """Mean IoU, mean accuracy and overall accuracy of segmentation maps, over one batch or streamed with `add_batch`.

    `compute(predictions=..., references=...)` takes one batch; `add_batch(predictions=..., references=...)`, any number
    of times, then `compute()` takes many and starts anew. Only the matrix of counts is kept, int64 `[C, C + 1]`,
    whatever the number of images. `len(metric)` is the number of images added since the last result.

    Logits of another size are brought to that of the references as the models' losses do (bilinear,
    `align_corners=False`), in float32 at least and image by image, on their own device.

    Args:
        num_labels: C, the model's `config.num_labels`. 1 is a model with one logit per pixel (`[B, 1, h, w]`): its
            classes are 0 and 1, the latter where the logit is above 0, and the results have two entries per class.
        ignore_index: the reference of a pixel without a label; none of the classes.
        class_names: a name per class, for `batch_metrics`.
        kwargs: those of `evaluate.Metric`; of no use here, since nothing is stored.

    Raises:
        ValueError: a predicted or labelled class that is none, no labelled pixel, or shapes or types other than those
            above. Nothing of such a batch is counted.

    Examples:
        >>> MeanIoU(num_labels=3).compute(predictions=[[[0, 1, 1]]], references=[[[0, 0, 1]]])["per_category_iou"]
        [0.5, 0.5, nan]
    """

    def __init__(
        self, num_labels: int, ignore_index: int = 255, class_names: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_labels = _whole("num_labels", num_labels)
        self.ignore_index = _whole("ignore_index", ignore_index)
        if self.num_labels < 1:
            raise ValueError(f"`num_labels` must be at least 1, got {num_labels}.")
        classes = max(self.num_labels, 2)
        if 0 <= self.ignore_index < classes:
            raise ValueError(
                f"`ignore_index` must be none of the classes 0 to {classes - 1}, got {ignore_index}: give pixels "
                "without a label another value, such as -1."
            )
        self.class_names = None if class_names is None else _names(class_names, classes)
        self._pixels = np.zeros((classes, classes + 1), np.int64)
        self.reset()

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="Intersection over union, averaged over the classes of a semantic segmentation.",
            citation="Long, Shelhamer, Darrell. Fully convolutional networks for semantic segmentation. CVPR 2015.",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def reset(self) -> None:
        """Forget what was added since the last result."""
        super().reset()
        self._pixels.fill(0)

    def _count(self, predictions: Any, references: Any) -> int:
        predictions, references = _maps("predictions", predictions), _maps("references", references)
        if len(predictions) != len(references):
            raise ValueError(f"MeanIoU got {len(predictions)} predictions for {len(references)} references.")
        batch = np.zeros_like(self._pixels)
        for prediction, reference in zip(predictions, references, strict=True):
            batch += self._counts(_tensor("predictions", prediction), _tensor("references", reference))
        self._pixels += batch
        return len(predictions)

    def _result(self) -> dict[str, Any]:
        if not self._pixels.any():
            raise ValueError(
                f"MeanIoU of no labelled pixels is undefined: all references of the {counted(len(self), 'image')} are "
                f"{self.ignore_index} (`ignore_index`)."
            )
        return _scores(self._pixels)

    def _for_trainer(self, result: dict[str, Any]) -> dict[str, float]:
        """Without the lists; "iou_<name>" of each class that is not absent, if there are `class_names`."""
        per_class, _ = result.pop("per_category_iou"), result.pop("per_category_accuracy")
        named = zip(self.class_names, per_class, strict=True) if self.class_names else ()
        return result | {f"iou_{name}": iou for name, iou in named if not np.isnan(iou)}

    def _counts(self, prediction: Tensor, reference: Tensor) -> NDArray[np.int64]:
        """`[C, C + 1]`: pixels of one image by labelled class (row) and predicted class (column), the last for none."""
        if reference.ndim != 2 or not _is_integer(reference):
            raise ValueError(f"`references` must be integer class ids [B, H, W], got for an image {_kind(reference)}.")
        if prediction.is_floating_point() and prediction.ndim == 3:
            if len(prediction) != self.num_labels:
                raise ValueError(
                    f"`predictions` must have a channel of logits per class, got {len(prediction)} with "
                    f"num_labels={self.num_labels}."
                )
            ids, none = _classes_of(prediction, reference.shape)
        elif _is_integer(prediction) and prediction.ndim == 2:
            ids, none = prediction.long(), _without_class(prediction, len(self._pixels))
        else:
            raise ValueError(
                "`predictions` must be integer class ids [B, H, W] or floating-point logits [B, C, h, w], got for an "
                f"image {_kind(prediction)}."
            )
        if ids.shape != reference.shape:
            raise ValueError(
                f"`predictions` of class ids must have the size of the references, got {tuple(ids.shape)} for "
                f"{tuple(reference.shape)}: pass logits, which are brought to that size."
            )
        reference = reference.to(ids.device).long()
        labelled = reference != self.ignore_index
        truth, ids, none = reference[labelled], ids[labelled], none[labelled]
        self._check_classes("references", truth)
        self._check_classes("predictions", ids[~none])
        rows, columns = self._pixels.shape
        cells = truth * columns + ids.masked_fill(none, rows)
        counts: NDArray[np.int64] = torch.bincount(cells, minlength=rows * columns).cpu().numpy()
        return counts.reshape(rows, columns)

    def _check_classes(self, name: str, ids: Tensor) -> None:
        """Raise unless all of `ids` `[P]` are classes."""
        classes = len(self._pixels)
        outside = ids[(ids < 0) | (ids >= classes)]
        if len(outside):
            value = int(outside[0])
            padded = " The Trainer pads maps of unequal height with -100: bring the images to one size."
            raise ValueError(
                f"`{name}` must be classes 0 to {classes - 1} (num_labels={self.num_labels}), or the `ignore_index` "
                f"{self.ignore_index} in references; got {value}.{padded if value == -100 else ''}"
            )


def predicted_classes(logits: Tensor | tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
    """The Trainer's `preprocess_logits_for_metrics`: class ids at the labels' size, so that no logits are gathered.

    Args:
        logits: `[B, C, h, w]` on any device, or a tuple whose first entry they are. C = 1 is a model with one logit per
            pixel: class 1 where it is above 0.
        labels: `[B, H, W]`; without them the size stays h, w. Of one size in all processes: the Trainer pads unequal
            heights, and the logits would be stretched over the padding.

    Returns:
        Class ids `[B, H, W]` on the logits' device, uint8 up to 255 classes, int32 above. A pixel with a NaN among its
        logits has no class: 255 in uint8, -1 in int32, which `MeanIoU` counts as wrong. Upsampled image by image, so
        that only one image's logits are ever at full size.

    Examples:
        >>> predicted_classes(torch.tensor([[[[0.0]], [[1.0]]]]), torch.zeros(1, 2, 2))
        tensor([[[1, 1],
                 [1, 1]]], dtype=torch.uint8)
    """
    logits = first_output(logits)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or not logits.is_floating_point():
        got = _kind(logits) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"`logits` must be a floating-point tensor [B, C, h, w], or a tuple that begins with it, got {got}."
        )
    size = (logits if labels is None else labels).shape[-2:]
    dtype = torch.uint8 if logits.shape[1] <= 255 else torch.int32  # int16 cannot be gathered with NCCL
    classes = torch.empty((len(logits), *size), dtype=dtype, device=logits.device)
    for image, ids in zip(logits, classes, strict=True):
        found, none = _classes_of(image, size)
        ids.copy_(found).masked_fill_(none, _NO_CLASS[dtype])
    return classes


_NO_CLASS = {torch.uint8: 255, torch.int32: -1}
"""What `predicted_classes` gives for a pixel without a class, by the type of its ids."""


def _without_class(ids: Tensor, classes: int) -> Tensor:
    """Where ids that `predicted_classes` made stand for no class; nowhere in ids from elsewhere."""
    dtype = torch.uint8 if classes <= 255 else torch.int32
    return ids == _NO_CLASS[dtype] if ids.dtype == dtype else torch.zeros_like(ids, dtype=torch.bool)


def _classes_of(logits: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Class ids `[H, W]` from one image's logits `[C, h, w]`, and where a NaN leaves none."""
    if logits.dtype != torch.float64:
        logits = logits.float()  # rounded to 16 bits again, interpolated logits would tie
    if logits.shape[-2:] != tuple(size):
        logits = F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    ids = (logits[0] > 0).long() if len(logits) == 1 else logits.argmax(0)
    return ids, logits.amax(0).isnan()


def _scores(pixels: NDArray[np.int64]) -> dict[str, Any]:
    """The result from counts `[C, C + 1]`, of which one at least is above 0."""
    hits, labelled, predicted = pixels.diagonal(), pixels.sum(1), pixels[:, :-1].sum(0)
    iou, accuracy = _ratio(hits, labelled + predicted - hits), _ratio(hits, labelled)
    return {
        "mean_iou": float(np.nanmean(iou)),
        "mean_accuracy": float(np.nanmean(accuracy)),
        "overall_accuracy": float(hits.sum() / labelled.sum()),
        "per_category_iou": iou.tolist(),
        "per_category_accuracy": accuracy.tolist(),
    }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """`part / whole` `[C]`, NaN where the whole is 0."""
    ratio = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _maps(name: str, values: Any) -> Any:
    """A sequence with an entry per image."""
    if isinstance(values, (list, tuple)):
        return values
    values = values if isinstance(values, Tensor) else np.asarray(values)
    if values.ndim not in (3, 4):
        raise ValueError(
            f"`{name}` must be a batch such as [B, H, W], got shape {tuple(values.shape)}: `add` takes one image."
        )
    return values


def _tensor(name: str, values: Any) -> Tensor:
    """One image's map, detached; arrays and lists are copied."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        kept = array.dtype if array.dtype in (np.uint8, np.int32) else np.int64  # as `predicted_classes` gives them
        return torch.from_numpy(array.astype(kept, order="C"))
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float64 if array.itemsize > 4 else np.float32, order="C"))
    raise ValueError(f"`{name}` must be numbers, got for an image {array.dtype} of shape {array.shape}.")


def _is_integer(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"


def _whole(name: str, value: Any) -> int:
    if not is_whole(value):
        raise ValueError(f"`{name}` must be an integer, got {value!r}.")
    return int(value)


def _names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """The names, one per class."""
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"`class_names` must be a sequence of names, got {names!r}.")
    if len(names) != classes or len(set(names)) != classes:
        raise ValueError(f"`class_names` must be {classes} different names, one per class, got {list(names)}.")
    return tuple(names)
