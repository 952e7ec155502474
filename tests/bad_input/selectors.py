"""Selectors: flags, parameters, what they do not go with, and batches that have no rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, default_data_collator

from hf_dynprune import DynPruneTrainer, InfoBatch, MixingCollator, OrderDPSelector, RandomSelector
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.serving.mixing import PARTNER_KEY, SHARE_KEY
from tests.bad_input import Case, build, first_batch, plain, refused
from tests.bad_input.data import Endless, Stream

SELECTORS_KNOWN = "Known selectors: orderdp, random, selective_backprop"


def selecting(message: str, name: Any = "random", /, **parameters: Any) -> Case:
    """Parameters of a selector, given as flags."""
    return refused(message, prune_selector=name, prune_selector_kwargs=parameters or None)


def beside(message: str, **flags: Any) -> Case:
    """A flag of pruning by epochs together with a selector."""
    return refused(f"{message} with a selector: .* a run has one of them", selector=RandomSelector(), **flags)


@dataclass(frozen=True)
class Own(RandomSelector):
    """A selector of the user's that breaks one rule."""

    wrong: str = ""

    @property
    def share(self):
        return 50 if self.wrong == "share" else super().share

    def start(self):
        return {"seen": 0} if self.wrong == "start" else {}

    def observe(self, losses, state):
        return [losses] if self.wrong == "observe" else state

    def select(self, losses, state, rng):
        rows, weights = super().select(losses, state, rng)
        return rows, weights.astype(str) if self.wrong == "weights" else weights


class InOwnOrder(DynPruneTrainer):
    """Visits the data in an order of its own."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


def in_own_order(place: Path) -> Trainer:
    return plain(InOwnOrder, place, prune_selector="random", prune_reproducible_augmentation=True)


def on_two_processes(place: Path) -> DynPruneTrainer:
    """Dispatched map-style data, as on two processes."""
    trainer = build(place, selector=RandomSelector(), accelerator_config={"dispatch_batches": True})
    trainer._training.context = SimpleNamespace(
        **{name: getattr(trainer._context, name) for name in ("args", "train_dataset", "batch_size")},
        accelerator=trainer.accelerator,
        layout=Layout(4, 1, 2),
    )
    return trainer


def row_batch(message: str, change: Any, error: type[Exception] = ValueError) -> Case:
    """A collator that changes the batch of candidates."""
    return first_batch(
        message, error, selector=RandomSelector(), data_collator=lambda items: change(default_data_collator(items))
    )


SELECTORS = {
    # prune_selector and its parameters
    "misspelt": selecting(
        rf"Unknown selector 'orderpd' in `prune_selector`\. Did you mean 'orderdp'\? {SELECTORS_KNOWN}", "orderpd"
    ),
    "policy's name": selecting(rf"Unknown selector 'infobatch' in `prune_selector`\. {SELECTORS_KNOWN}", "infobatch"),
    "object for a name": selecting(
        r"`prune_selector` is a selector's name, got RandomSelector\(ratio=0\.5\): pass an object .* as `selector=`",
        RandomSelector(),
    ),
    "parameters alone": refused(
        r"`prune_selector_kwargs` \({'ratio': 0\.5}\) without `prune_selector`: name the selector",
        prune_selector_kwargs={"ratio": 0.5},
    ),
    "broken JSON": refused(
        r"`prune_selector_kwargs` must be a JSON object, got '\{ratio: 1\}'",
        prune_selector="random",
        prune_selector_kwargs="{ratio: 1}",
    ),
    "unknown parameter": selecting("Unknown parameter 'top' for selector 'orderdp', which takes: p", "orderdp", top=1),
    "random: ratio": selecting(r"`ratio` of RandomSelector must be a number in \[0, 1\), got 1", ratio=1),
    "orderdp: pool": selecting(
        r"`pool_ratio` of OrderDPSelector must be a number in \(0, 1\], got 0", "orderdp", pool_ratio=0
    ),
    "orderdp: top": selecting(
        r"`top_ratio` of OrderDPSelector must be a number in \(0, 1\], got 30", "orderdp", top_ratio=30
    ),
    "selective_backprop: beta": selecting(
        r"`beta` of SelectiveBackprop must be a number in \[0, 100\], got -1", "selective_backprop", beta=-1
    ),
    "selective_backprop: history": selecting(
        "`history` of SelectiveBackprop must be a whole number of at least 1, got 0", "selective_backprop", history=0
    ),
    "class for an object": refused(
        "`selector` must be a BatchSelector object such as OrderDPSelector.., .* got <class", selector=OrderDPSelector
    ),
    "policy for a selector": refused(
        r"`selector` must be a BatchSelector object such as .* got InfoBatch", selector=InfoBatch()
    ),
    # What it does not go with
    "policy and selector": refused(
        r"Both a `policy` \(infobatch\(.*\)\) and a selector \(random\(ratio=0\.5\)\) are given: .* Give one",
        selector=RandomSelector(),
        policy=InfoBatch(),
    ),
    "ratio": beside(r"`prune_ratio` \(0\.3\)", prune_ratio=0.3, prune_method="infobatch"),
    "ratio, as flags": refused(
        r"`prune_ratio` \(0\.4\) with a selector: .* Remove `prune_ratio`, or the selector",
        prune_selector="random",
        prune_ratio=0.4,
        prune_method="infobatch",
    ),
    "method's parameters": beside(
        r"`prune_kwargs` \({'delta': 1\.0}\)", prune_kwargs={"delta": 1.0}, prune_method="infobatch"
    ),
    "method": beside(r"`prune_method` \('orderdp'\)", prune_method="orderdp"),
    "saving": beside(
        r"`prune_target_saving` \(0\.2\)", prune_target_saving=0.2, prune_method="infobatch", num_train_epochs=20
    ),
    "budget": beside(r"`prune_budget` \('steps'\)", prune_budget="steps", max_steps=3),
    "warm-up": beside(r"`prune_warmup_epochs` \(1\)", prune_warmup_epochs=1),
    "reproducible augmentation of a stream": refused(
        r"`prune_reproducible_augmentation` \(True\) with an iterable data set: .* a stream has none\. Leave",
        selector=RandomSelector(),
        dataset=Stream(),
        max_steps=3,
        prune_reproducible_augmentation=True,
    ),
    "reproducible augmentation with another loader": Case(
        in_own_order,
        r"`prune_reproducible_augmentation` \(True\) with a selector needs the trainer's own loader.* "
        "Leave the flag off, or change this: InOwnOrder has a `_get_train_sampler` of its own",
    ),
    "one candidate": refused(
        r"random\(ratio=0\.5\) is to train 50\.0% of each batch, but `per_device_train_batch_size` is 1: there is",
        selector=RandomSelector(),
        per_device_train_batch_size=1,
    ),
    "stream without max_steps": refused(
        "does not implement __len__, .*max_steps has to be specified", selector=RandomSelector(), dataset=Stream()
    ),
    "neither indexed nor iterable": refused(
        "got a Endless without length or indexing: .* or choose inside the batch: `prune_selector` takes an iterable",
        selector=RandomSelector(),
        dataset=Endless(),
        max_steps=3,
    ),
    "dispatched map-style data": Case(
        on_two_processes,
        "`dispatch_batches=True` in .* with a selector, map-style data and 2 processes: a resume inside an epoch would "
        "train samples again, .* Leave `dispatch_batches` off",
        steps=0,
    ),
    "less data than a window": first_batch(
        r"data ended after 2 batches .* before the first accumulation window of 4 was full: nothing would be trained\. "
        "Set `gradient_accumulation_steps` to at most 2, lower `per_device_train_batch_size`, or pass more data",
        selector=RandomSelector(),
        dataset=Stream(),
        max_steps=3,
        gradient_accumulation_steps=4,
    ),
    # Selectors of the user's
    "share above 1": refused(r"`share` of Own must be a number in \(0, 1\], .* got 50", selector=Own(wrong="share")),
    "state at the start": first_batch(
        "`start` of Own must return a mapping of names to numpy arrays of numbers, got 'seen' as int",
        selector=Own(wrong="start"),
    ),
    "state": first_batch(
        "`observe` of Own must return a mapping of names to numpy arrays of numbers, {} for none, got list",
        selector=Own(wrong="observe"),
    ),
    "text for weights": first_batch(
        "`select` of Own must give weights that are numbers, got <U", selector=Own(wrong="weights")
    ),
    # Batches
    "no mapping": row_batch(
        "must return a mapping of names to tensors, got list: .* and rows are chosen from them",
        lambda batch: list(batch.values()),
        TypeError,
    ),
    "packed": row_batch(
        "has 4 rows, but 'cu_seq_lens' 3: .* cannot tell which entries belong to which sample. .* packed batches",
        lambda batch: batch | {"cu_seq_lens": torch.tensor([0, 3, 7])},
    ),
    "packed into one row": row_batch(
        r"random\(ratio=0\.5\) is to train 50\.0% of each batch, but the first batch has 1 row where "
        "`per_device_train_batch_size` is 4: .* packs the samples into one row .* use one that pads",
        lambda batch: {name: value[:1] for name, value in batch.items()},
    ),
    "nested mapping": row_batch(
        "has 4 rows, but 'vision.size' 3: .* cannot tell which entries belong to which sample",
        lambda batch: batch | {"vision": {"size": torch.ones(3)}},
    ),
    "numpy array": row_batch(
        "has 'extra' as ndarray: in-batch selection takes rows of tensors and lists only",
        lambda batch: batch | {"extra": np.ones(4)},
    ),
    "list of another length": row_batch(
        "has 4 rows, but 'names' 2: .* Let the collator give every tensor and list one entry per sample",
        lambda batch: batch | {"names": ["a", "b"]},
    ),
    "no tensors": row_batch("has no tensor with rows, only: text", lambda batch: {"text": ["a"]}),
    "mixed samples": refused(
        "The collator mixes samples .mixup, cutmix., and a selector chooses rows of each batch: .* Prune by a policy",
        selector=RandomSelector(),
        data_collator=MixingCollator(),
    ),
    "mixed samples, by keys": row_batch(
        "The collator mixes samples .mixup, cutmix., and a selector chooses rows",
        lambda batch: batch | {PARTNER_KEY: torch.arange(4).flip(0), SHARE_KEY: torch.full((4,), 0.7)},
    ),
}
