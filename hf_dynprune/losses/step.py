"""A batch's part in the training loss: what it is divided by, and its weighted sum.

A loss is made in one of three ways. A *known* loss is computed here from the model's outputs. *Other code*, such as a
user's `compute_loss`, makes its loss itself, taken apart by sample on the way (`interception.py`). Where nothing is
pruned and there is other code, the *stock* loss is trained on, and samples' losses are at most read off beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from ..common.logs import logger
from ..decisions.logged_loss import LossEstimate
from ..serving.distributed import share_of_rows, sum_over_processes
from ..serving.indexed import INDEX_KEY
from ..serving.served import Served, ServedBatch, is_indexed, share_a_tensor, take_served, without_own_keys
from . import host
from .apart import LossScale
from .base import LossTerms, PerSampleLoss
from .checks import check_counts, check_terms, mean_loss, scores_are_losses
from .interception import InterceptedLoss
from .labels import real_items
from .reduction import noted, plain_loss, spoiled, weighted_loss


@dataclass(frozen=True)
class StepResult:
    """A loss and what it is made of.

    Args:
        value: this batch's part of the window's training loss.
        outputs: the model's; None where the code that makes the loss keeps them.
        index: int64 `[B]`, positions in the training set; with a selector, in the batch of candidates.
        count: int64 `[B]`, n_i; 0 for what is not recorded, as of a ghost; -1 where nothing is labelled.
        score: float `[B]`, detached.
    """

    value: Tensor
    outputs: Any
    index: Tensor
    count: Tensor
    score: Tensor


class LossStep:
    """Counts and weighs the per-sample losses of one training.

    Args:
        loss: gives each sample's loss; None where the stock loss is trained on and nothing is known of samples.
        accelerator: of the Trainer.
        owner: name of the trainer class, for messages.
        is_stock: whether the stock loss is trained on.
        refusal: why samples have no losses, where the stock loss is trained on; None once that was made.
        repairs: whether a step that samples spoil is made again without them (`training/repair.py`).
        masks: whether losses that are not finite are taken out of the sum, where a step cannot be made again without
            their samples (`training/repair.py`).
        check: called with this object, the first batch of a run and its number of samples; sets `is_checked`.
    """

    _extra: Any = 0  # the last batch's part of the loss that belongs to no sample
    _knows_losses: bool | None = None  # whether scores are losses; None until the first batch shows it
    _scale: LossScale | None = None
    is_logged = False  # whether the step under way has made its loss what is logged

    def __init__(
        self,
        loss: PerSampleLoss | None,
        accelerator: Any,
        owner: str,
        is_stock: bool = False,
        refusal: ValueError | None = None,
        repairs: bool = False,
        masks: bool = False,
        check: Callable[[LossStep, Any, int], None] | None = None,
    ) -> None:
        self.loss = loss
        self.owner, self.is_stock = owner, is_stock
        self.has_ghosts = True
        """Whether a batch may hold samples of weight 0. True until a plan says otherwise; a selector makes some too."""
        self.repairs, self.masks = repairs, masks
        self.results: list[tuple[Tensor, Tensor, Tensor]] = []
        """(index, score, count) of each batch of the window under way."""
        self.estimate = LossEstimate()
        """What the loss of the samples that are trained says of the mean loss over all: that is logged."""
        self.before_pass: Callable[[], None] = lambda: None
        """Called before a loss is made of a batch of the window."""
        self.is_checked = check is None
        """Whether the first batch was compared with what the stock Trainer makes of it, or need not be."""
        self.forwarded = 0
        """Samples trained since the run began or was resumed, over all processes. One whose batch is forwarded several
        times in a step counts once: on full data it would be forwarded as often."""
        self.dealt = 0
        """Places of batches dealt out since then: `forwarded`, and samples that the collator left out."""
        self.failure: Exception | None = None
        """Why other code could not make its loss of the first batch."""
        self.refusal = refusal
        self._check, self._accelerator = check, accelerator
        self.window: list[tuple[Any, Served]] = []
        """The batches of the window under way, and what was dealt out with each."""
        self._items: Any = None
        self._current: Served | None = None
        self._is_fetching = False

    @property
    def is_known(self) -> bool:
        """Whether the training loss is computed here, from the model's outputs."""
        return not self.is_stock and not isinstance(self.loss, InterceptedLoss)

    @property
    def is_intercepted(self) -> bool:
        """Whether other code makes the training loss, and it is taken apart on the way."""
        return not self.is_stock and isinstance(self.loss, InterceptedLoss)

    @property
    def can_observe(self) -> bool:
        """Whether samples' losses can be read off beside a stock loss, from the outputs of its forward pass."""
        return self.is_stock and self.loss is not None and type(self.loss).forward is PerSampleLoss.forward

    @property
    def options(self) -> Mapping[str, Any] | None:
        """Parameters of the loss that are not at their defaults."""
        return None if self.loss is None else self.loss.options

    # ---- Windows ----

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Context in which a window is fetched. Batches that are counted elsewhere are those of an evaluation."""
        self._is_fetching = True
        try:
            yield
        finally:
            self._is_fetching = False

    def take(self, batches: list[Any]) -> bool:
        """Take out of a fetched window's batches, in place, what was dealt out with them; False for other batches."""
        if not all(map(is_indexed, batches)) or all(isinstance(batch, ServedBatch) for batch in batches):
            return bool(batches) and all(self.find(batch) is not None for batch in batches)  # taken before
        self.window, window = [], []
        for place, batch in enumerate(batches):
            batches[place], served = take_served(batch)
            served.whole = dict(batches[place])
            window.append((batches[place], served))
            rows, processes = len(served.index), self._accelerator.num_processes
            self.forwarded += rows * processes
            self.dealt += (rows + served.dropped) * processes
            if self.has_ghosts and processes > 1:
                served.share = share_of_rows(self._accelerator, (served.weight > 0).sum())
        if not self.is_checked and self._check is not None:
            # Before the batches are those of the window: the check trains on none of them.
            self._check(self, batches[0], len(window[0][1].index))
        self.window, self.results = window, []
        return True

    @contextmanager
    def again(self, has_ghosts: bool) -> Iterator[None]:
        """Context in which a window is made once more without some of its samples, which were counted before.

        `has_ghosts`: whether some process has a row of weight 0 in it, as its batch would be empty otherwise.
        """
        counts, before = (self.forwarded, self.dealt), self.has_ghosts
        self.has_ghosts = before or has_ghosts
        try:
            with self.fetching():
                yield
        finally:
            self.has_ghosts = before
            self.forwarded, self.dealt = counts

    def note(self, served: Served, result: StepResult | None) -> None:
        """Keep a batch's scores, of the first loss that is made of it, until the optimizer's step is to be made."""
        if result is not None and served.first_use():
            self.results.append((result.index, result.score, result.count))

    def find(self, batch: Any) -> Served | None:
        """What was dealt out with a batch of the window, also after it was moved to a device or copied."""
        if isinstance(batch, ServedBatch):
            return batch.served
        for own, served in self.window:
            if own is batch or share_a_tensor(own, batch):
                return served
        return None

    def items(self, batches: list[Any], stock: Callable[[list[Any]], Any]) -> Any:
        """What a window's loss is divided by: D with a known loss, else what `stock`, the Trainer's method, counts."""
        if not self._is_fetching or not self.take(batches):
            return stock(batches)
        if not self.is_known:
            has_ghosts = self.is_intercepted and self.has_ghosts
            return real_items(self.window, stock, self._accelerator, self.loss) if has_ghosts else stock(batches)
        self._items = self.count()
        return self._items

    def count(self) -> Tensor | None:
        """D: the items that carry loss in the accumulation window of all processes, at least 1; None without batches.

        Each batch keeps its own counts.
        """
        assert self.loss is not None
        total: Any = None
        for batch, served in self.window:
            count = self.loss.count(batch if isinstance(batch, ServedBatch) else {**batch, INDEX_KEY: served.index})
            check_counts(count, served.index)
            served.count = count = count * (served.weight > 0) if self.has_ghosts else count
            total = count.sum() if total is None else total + count.sum()
        if total is None:
            return None
        total = sum_over_processes(self._accelerator, total)
        is_enough = host.is_on_host(total) and total.item() >= 1
        return total if is_enough else total.clamp(min=1)  # type: ignore[no-any-return]

    def refuse_unused(self) -> None:
        """Raise a RuntimeError, before the optimizer's step, where no loss was made here of a batch of the window."""
        if self.is_stock or all(served.is_used for _, served in self.window):
            return
        raise RuntimeError(
            f"`compute_loss` of {self.owner} did not reach the pruning trainer's: losses were neither weighted nor "
            "recorded. "
            + (
                "Call `super().compute_loss` in it, which makes the loss that was passed as `per_sample_loss`."
                if self.is_known
                else "Its `training_step` calls neither `super().training_step` nor `self.compute_loss` with the batch "
                "it is given: let it call one of them, or set `prune_method='none'`."
            )
        )

    # ---- Steps ----

    @contextmanager
    def training(self, inputs: Any) -> Iterator[None]:
        """Context of a training step on a batch of the window."""
        # A step that changes every entry, as by noise, passes on a batch without a tensor of the fetched one.
        left = (served for _, served in self.window if not served.is_used)
        before, self._current = self._current, self.find(inputs) or next(left, None)
        try:
            yield
        finally:
            self._current = before

    def logged(self, loss: Tensor) -> Tensor:
        """What is logged of a micro-batch's training loss: an estimate of the mean loss over all samples."""
        self.is_logged = True
        share: Any = 1 / max(1, len(self.window))
        if self._scale is not None and not self.estimate.is_of_all:
            loss, share = self._scale.read(loss, share)
        return self.estimate.of(loss, self._extra, share, self._knows_losses is not False)  # type: ignore[no-any-return]

    def served(self, inputs: Any) -> Served | None:
        """What was dealt out with the batch that a loss is to be made of; None in evaluation."""
        if (found := self.find(inputs) or self._current) is not None:
            self.before_pass()
        return found

    def forward(self, model: Any, inputs: Mapping[str, Any], served: Served, micro_batches: int) -> StepResult:
        """Forward a batch and weigh its losses by the window's denominator D, with a known loss."""
        assert self.loss is not None
        batch = without_own_keys(inputs)
        if served.count is None:
            self._items = self.count()
        outputs = self.loss.forward(model, batch)
        terms = self.loss(model, batch, outputs)
        check_terms(terms, served.index)
        processes = self._accelerator.num_processes
        # Gradients are averaged over processes, but their sum is meant.
        denominator = self._items / processes if processes > 1 else self._items
        weight = served.weight.to(terms.total.device)
        value = (weighted_loss if self.masks else plain_loss)(terms, weight, denominator, micro_batches)
        value = spoiled(value) if self.repairs else value
        self._extra = 0 if terms.extra is None else terms.extra.detach() / micro_batches
        count: Any = served.count
        if self._knows_losses is None:
            self._knows_losses = self.loss.scores_are_losses or scores_are_losses(terms, count)
        recorded = noted(terms.scored(count), count, served.weight)
        return StepResult(value, outputs, served.index, recorded, terms.score.detach().to(served.index.device))

    def intercept(
        self, compute: Callable[..., Any], model: Any, inputs: Any, served: Served, named: Mapping[str, Any]
    ) -> tuple[Any, StepResult]:
        """(what other code gives for a batch, with weighted losses; the losses).

        `compute` is the trainer's `compute_loss`, `named` what it is called with beside model and batch.
        """
        if self.failure is not None:
            raise self.failure
        loss: Any = self.loss
        count = loss.count(inputs)  # before the code takes entries out
        check_counts(count, served.index)
        if self.has_ghosts:
            count = count * (served.weight > 0)
        found = loss.apart(
            lambda: compute(model, inputs, **named),
            inputs,
            len(served.index),
            named.get("num_items_in_batch"),
            served.weight,
            served.share,
        )
        loss.refuse_other_sums(found)
        value, score = spoiled(found.value) if self.repairs else found.value, found.carried[1].detach()
        recorded = torch.where(score == 0, noted(count, count, served.weight), count)  # it may know other labels
        self._scale = found.scale(served.weight, self.has_ghosts)
        result = StepResult(value, found.outputs, served.index, found.counted(recorded), score)
        return ((value, found.outputs) if named.get("return_outputs") else value), result

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Context of a stock loss: where the first one fails, what is known of the reason is raised."""
        try:
            yield
        except Exception as error:
            if self.refusal is None or should_reduce_batch_size(error):
                raise
            raise ValueError(str(self.refusal)) from error
        self.refusal = None

    def observe(self, model: Any, inputs: Mapping[str, Any], served: Served, value: Tensor, outputs: Any) -> Any:
        """The samples' losses beside a stock loss; None where they are not known."""
        assert self.loss is not None
        try:
            batch = without_own_keys(inputs)
            with torch.no_grad():
                count = self.loss.count({**batch, INDEX_KEY: served.index})
                terms = self.loss(model, batch, outputs)
            check_counts(count, served.index)
            self._compare(value, terms, count)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            logger.info("The samples' losses are not known here, so there are no figures of them: %s", error)
            self.loss = None
            return None
        recorded = noted(count * (served.weight > 0), count, served.weight)
        return StepResult(value, outputs, served.index, recorded, terms.score.detach())

    def _compare(self, value: Tensor, terms: LossTerms, count: Tensor) -> None:
        """Raise a ValueError where a stock loss of the first batch is not that of the samples."""
        if self.is_checked:
            return
        expected, got = float(value.detach()), mean_loss(terms, count)
        if math.isfinite(expected) and not math.isclose(expected, got, rel_tol=1e-2, abs_tol=1e-5):
            raise ValueError(f"{type(self.loss).__name__} gives {got:.6g} where the loss is {expected:.6g}.")
        self.is_checked = True
