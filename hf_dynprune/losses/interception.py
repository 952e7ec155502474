"""The loss of any model or trainer, as its own code computes it, taken apart by sample.

The code runs inside `BySample`, which keeps torch's reductions apart. With L the loss of the batch, c_i what sample i
adds to it, and n_i its labels that are not -100, or 1 where it has only one (and for CTC):

    S_i = c_i * sum_j n_j, so that sum_i S_i / sum_i n_i = L        score_i = the loss of sample i alone

This cannot see a sum that is taken in another way, nor tell samples apart that are compared with each other: on the
first batch the parts are compared with the loss, and single samples with what they give alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..common.logs import logger
from ..decisions.proxy import GradientProxy, smoothed_entropy
from ..serving.generators import states_of_generators
from ..serving.rows import device_of, number_of_rows, take_rows
from .apart import LossApart
from .base import LossTerms, PerSampleLoss
from .by_sample import BySample, Place
from .labels import IGNORE, is_named
from .readings import are_close, gradient, sizes

Compute = Callable[[Any, dict[str, Any], Any], Any]
"""(model, inputs, num_items_in_batch) -> the loss, or (loss, outputs)."""


class NotTakenApart(ValueError):
    """A loss is not made of reductions over the samples of the batch."""


class InterceptedLoss(PerSampleLoss):
    """A loss that is a sum or mean over samples, made by code that knows nothing of single samples.

    Args:
        model: gives the loss as `outputs["loss"]`, or first in a tuple, where there is no `compute`.
        label_smoothing: must be 0 without `compute`: the Trainer smooths logits of its own choice, not a model's loss.
        compute: how a trainer makes the loss.
        shifts_labels: whether the labels of a place are those of the place before, as in causal language models.
        is_normalized: whether the Trainer gives the number of labels of the whole window to what computes the loss.
        factor: by which the Trainer multiplies the loss: the number of processes, where it counts the labels of all of
            them together (`average_tokens_across_devices`).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        label_smoothing: float = 0.0,
        compute: Compute | None = None,
        shifts_labels: bool = False,
        is_normalized: bool = False,
        factor: int = 1,
    ) -> None:
        if label_smoothing and compute is None:
            raise ValueError(
                f"`label_smoothing_factor` {label_smoothing} with {type(model).__name__}, for which no per-sample loss "
                f"is known: set it to 0, or {_PASS_ONE}"
            )
        self.compute = _models_own if compute is None else compute
        self.counts_labels = not is_named(model, "ForCTC")
        self.shifts_labels, self.is_normalized, self.factor = shifts_labels, is_normalized, factor
        self.owner = type(model).__name__
        self.made_by = ""
        """The user's code that makes the loss, such as "`compute_loss` of MyTrainer"; empty for the model's own."""
        self.is_verified = False
        """Whether the parts were compared with the loss, and samples with what they give alone."""
        self.gradient_proxy = None
        self.blocks = 1
        """Rows of a batch for one sample: two where the chosen answers of all pairs come before the rejected ones."""
        self._others: frozenset[Place] = frozenset()
        self._counts: frozenset[Place] | None = None
        self._first: LossApart

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """Labels that are not -100, of which a sample may have several; without such labels, and for CTC, 1."""
        labels, rows = inputs.get("labels"), self.rows(inputs)
        is_by_sample = self.counts_labels and self.blocks == 1
        if is_by_sample and isinstance(labels, Tensor) and labels.dim() and not labels.is_floating_point():
            return labels.ne(IGNORE).reshape(rows, -1).sum(1)
        return torch.ones(rows, dtype=torch.int64, device=device_of(inputs))

    def rows(self, inputs: Mapping[str, Any]) -> int:
        """Samples of a batch."""
        return number_of_rows(inputs) // self.blocks

    def items(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """`[B]`: how many of the items that the Trainer counts (`num_items_in_batch`) each sample has."""
        labels = inputs.get("shift_labels")
        if labels is None:
            labels = inputs.get("labels")
            if isinstance(labels, Tensor) and self.shifts_labels and labels.dim() > 1:
                labels = labels[..., 1:]
        if not isinstance(labels, Tensor) or not labels.dim():
            return None
        return labels.ne(IGNORE).reshape(len(labels), -1).sum(1)

    # ---- The loss ----

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> LossApart:
        """The loss of the batch and what it is made of."""
        # On the first batch gradients show what the loss is learned through, and what only counts.
        with nullcontext() if self.is_verified else torch.enable_grad():
            return self._run(model, inputs)

    def _run(self, model: Callable[..., Any], inputs: Mapping[str, Any], weights: Tensor | None = None) -> LossApart:
        items = self.items(inputs) if self.is_normalized else None
        # Of the window of all processes: the Trainer multiplies the loss by their number.
        number, batch = None if items is None else items.sum() * self.factor, dict(inputs)
        return self.apart(lambda: self.compute(model, batch, number), inputs, self.rows(inputs), number, weights)

    def apart(
        self,
        compute: Callable[[], Any],
        inputs: Mapping[str, Any],
        rows: int,
        number_of_items: Any = None,
        weights: Tensor | None = None,
        share: Tensor | float = 1.0,
    ) -> LossApart:
        """What `compute` gives, for inputs of B = `rows` samples, with `weights` `[B]` in it if there are any.

        Raises:
            ValueError: it cannot be taken apart by sample.
        """
        mode = BySample(rows, sizes(inputs, rows), weights, share, self._others, self._counts)
        share_of_items = None
        labels = self.items(inputs) if isinstance(number_of_items, Tensor) and not number_of_items.dim() else None
        if labels is not None and len(labels) == rows:
            each, number = (labels * self.factor).to(torch.float32), number_of_items.to(torch.float32)
            mode.give(number_of_items, torch.stack([number.expand(rows), each.clamp(min=1)]))
            share_of_items = (each if weights is None else each * (weights > 0)).sum() / number
        with mode:
            result = compute()
            loss, outputs = result if isinstance(result, tuple) else (result, None)
            if isinstance(loss, Tensor) and loss.dim() == 1 and len(loss) == rows:
                loss = loss.mean()  # a loss of each sample
        made = mode.of(loss)
        if made is None or made.carried.shape != (2, rows):
            found = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else "missing"
            raise NotTakenApart(
                f"The loss of {self.owner} ({found}) cannot be taken apart by sample: it is not made by reductions of "
                f"torch's over the samples of the batch. {_DO_PASS_ONE}"
            )
        if self.gradient_proxy is None and not self.is_verified:
            self.gradient_proxy = self._proxy(mode, made.carried[1].detach(), inputs)
        others, counts = frozenset(mode.seen) - made.places, frozenset(mode.counted)
        items = mode.means[0] if len(mode.means) == 1 else None
        return LossApart(loss, made.carried, outputs, others, counts, made.is_sum, items, share_of_items)

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: LossApart) -> LossTerms:
        carried, rows = outputs.carried, outputs.carried.shape[1]
        if not self.is_verified:
            self._check_parts(outputs)
            self._first = outputs
        total = carried[0] / rows * self.count(inputs).sum()
        return LossTerms(total=total, score=carried[1].detach())

    # ---- Checks on the first batch ----

    def refuse_other_sums(self, found: LossApart) -> None:
        """Raise a ValueError where a later batch's loss is no sum of its samples' parts, as the first one's was."""
        if not found.is_sum:
            self._check_parts(found, "in a later batch")

    def _check_parts(self, found: LossApart, where: str = "on the first batch") -> None:
        value, parts = float(found.value.detach()), float(found.carried[0].detach().double().mean())
        is_alike = not math.isfinite(value) or math.isclose(value, parts, rel_tol=1e-3, abs_tol=1e-5)
        if not (found.is_sum and is_alike):
            raise ValueError(
                f"The loss of {self.owner} is {value:.6g} {where}, the parts of its samples are "
                f"{parts:.6g}: it is no sum over samples, such as a root or a power of a mean, or a ratio of "
                f"two sums. {_DO_PASS_ONE}"
            )

    def verify(self, model: torch.nn.Module, inputs: Mapping[str, Any], terms: LossTerms, rel_tol: float) -> None:
        """Compare the first and the last sample that have labels with their losses alone."""
        rows = len(terms.score)
        labelled = self.count(inputs).nonzero().flatten().tolist() if rows > 1 else []
        states = states_of_generators(terms.score.device)
        found = [self._alone(model, inputs, index, rows) for index in sorted({*labelled[:1], *labelled[-1:]})]
        pairs = [(float(terms.score[index]), alone) for index, alone in found if alone is not None]
        if not are_close(pairs, rel_tol):
            self._counts = frozenset()  # a whole number in the code may just happen to be that of the samples
            again = self.forward(model, inputs).carried[1].detach()
            if not are_close([(float(again[index]), alone) for index, alone in found if alone is not None], rel_tol):
                self._refuse_unlike(model, inputs, terms, pairs, rel_tol)
        elif states != states_of_generators(terms.score.device):  # two samples may be alike by chance
            self._is_random(model, inputs, terms, rel_tol)
        elif rows > 1 and torch.allclose(terms.score, terms.score[:1], rtol=rel_tol, atol=1e-5):
            # As where a model still is its reference, or its head is 0: the losses do not tell samples apart.
            self._compare_gradients(model, inputs, [index for index, alone in found if alone is not None], rows)
        self._others = self._first.others
        self._counts = self._first.counts if self._counts is None else self._counts
        if states == states_of_generators(terms.score.device) and rows > 1:
            self._check_weights(model, inputs, rows)
        del self._first  # with the activations of its graph
        self.is_verified = True

    def _check_weights(self, model: torch.nn.Module, inputs: Mapping[str, Any], rows: int) -> None:
        """Raise a ValueError where weights do not act on the loss, or on its gradient, as on a sum of parts."""
        with torch.enable_grad():
            weights = torch.linspace(0.5, 1.5, rows, device=device_of(inputs))  # of mean 1: constants stay as they are
            found = self._run(model, inputs, weights)
            expected = (weights.to(found.carried.dtype) * found.carried[0]).mean()
            try:
                ours = gradient(found.value, model)
                # Parts without a gradient are those of code that makes its gradient by itself.
                theirs = gradient(expected, model) if expected.requires_grad else torch.zeros_like(ours)
            except RuntimeError as error:
                logger.debug("The gradients of a weighted loss were not compared: %s", error)
                ours = theirs = torch.zeros(1)
        value, wanted = float(found.value.detach()), float(expected.detach())
        is_alike = not math.isfinite(wanted) or math.isclose(value, wanted, rel_tol=1e-2, abs_tol=1e-4)
        if not is_alike or float((ours - theirs).norm()) > 0.05 * float(theirs.norm()) + 1e-5:
            raise ValueError(
                f"Weights of samples do not act on the loss of {self.owner} as on a sum over samples: with weights of "
                f"mean 1 it is {value:.6g} where the weighted parts are {wanted:.6g}, or its gradient is another one. "
                "It may divide by something that the weights change, or compute its gradient by code of its own. "
                f"{_DO_PASS_ONE}"
            )

    def _alone(
        self, model: torch.nn.Module, inputs: Mapping[str, Any], index: int, rows: int
    ) -> tuple[int, float | None]:
        """The loss of a sample alone; None where the code takes no single sample, which is said."""
        try:
            return index, float(self.forward(model, take_rows(inputs, [index], rows)).value.detach())
        except NotTakenApart:
            raise
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            logger.warning(
                "The loss of %s was not compared with that of a sample alone, which fails (%s): that samples are not "
                "compared with each other is not known.",
                self.owner,
                error,
            )
            return index, None

    def _compare_gradients(
        self, model: torch.nn.Module, inputs: Mapping[str, Any], indices: list[int], rows: int
    ) -> None:
        """Raise a ValueError where the loss of a sample has another gradient alone."""
        for index in indices:
            with torch.enable_grad():
                inside = self._first.carried[1][index]
                alone = self.forward(model, take_rows(inputs, [index], rows)).value
            try:
                ours, theirs = gradient(inside, model), gradient(alone, model)
            except RuntimeError as error:  # such as of recurrent layers, which have none in evaluation mode
                logger.debug("The gradients of single samples were not compared: %s", error)
                return
            if float((ours - theirs).norm()) > _GRADIENT_TOLERANCE * float(theirs.norm()) + 1e-6:
                raise ValueError(
                    f"{self.owner}'s losses are all alike on the first batch, but a sample's has another gradient in "
                    "its batch than alone: samples are compared with each other, or cannot be told apart, so there is "
                    f"no loss per sample to record. {_DO_PASS_ONE}"
                )

    def _refuse_unlike(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        terms: LossTerms,
        pairs: list[tuple[float, float]],
        rel_tol: float,
    ) -> None:
        """Raise a ValueError for samples that have another loss alone, unless two equal calls differ too."""
        self._counts = None
        if self._is_random(model, inputs, terms, rel_tol):
            return
        inside, alone = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
        raise ValueError(
            f"{self.owner}'s loss of a sample is {inside:.6g} in its batch and {alone:.6g} alone: samples are compared "
            "with each other, divided by the size of their batch by the code itself, or cannot be told apart, so there "
            f"is no loss per sample to record. {_DO_PASS_ONE}"
        )

    def _is_random(self, model: torch.nn.Module, inputs: Mapping[str, Any], terms: LossTerms, rel_tol: float) -> bool:
        """Whether two equal calls differ, which is said."""
        again = self.forward(model, inputs).carried[1].detach()
        if torch.allclose(again, terms.score, rtol=rel_tol, atol=1e-5, equal_nan=True):
            return False
        sample = int((again - terms.score).abs().argmax())
        logger.warning(
            "The loss of %s draws random numbers in evaluation mode too: two equal calls give %.6g and %.6g for a "
            "sample. It was not compared with the loss of single samples.",
            self.owner,
            float(terms.score[sample]),
            float(again[sample]),
        )
        return True

    def _proxy(self, mode: BySample, score: Tensor, inputs: Mapping[str, Any]) -> GradientProxy | None:
        """Of the gradient's norm, where the loss is one loss function of torch, and nothing else, with a known one."""
        if len(mode.reduced) != 1:
            return None
        func, given, value = mode.reduced[0]
        made = mode.of(value)
        alone = None if made is None else made.carried[1].detach()
        items = self.items(inputs)
        if alone is not None and given["reduction"] == "sum" and items is not None and len(items) == len(alone):
            alone = alone / items.clamp(min=1)
        if alone is None or not torch.allclose(alone, score, rtol=1e-4, atol=1e-6, equal_nan=True):
            return None
        if func is functional.mse_loss:
            return GradientProxy("squared_error")
        is_plain = func is functional.cross_entropy and given["weight"] is None
        if not is_plain or given["target"].is_floating_point():
            return None
        return GradientProxy("cross_entropy", smoothed_entropy(given["label_smoothing"], given["input"].shape[1]))


_PASS_ONE = (
    "pass `per_sample_loss=fn` to the trainer, with fn(model, inputs, outputs) returning one loss per sample [B], or "
    "register one with `register_loss`."
)
_DO_PASS_ONE = f"P{_PASS_ONE[1:]}"


_GRADIENT_TOLERANCE = 0.2
"""Half precision moves a gradient by less, and that of another sample differs by more."""


def _models_own(model: Any, inputs: dict[str, Any], number_of_items: Any) -> Any:
    outputs = model(**inputs)
    return (outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]), outputs
