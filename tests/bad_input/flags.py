"""Pruning flags, the methods' parameters, and settings of the Trainer that do not go with pruning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from hf_dynprune import DynPruneTrainer, InfoBatch
from tests.bad_input import Case, build, first_batch, plain, refused

KNOWN = "Known methods: epsilon_greedy, infobatch, none, orderdp, random, static, ucb"


def given(message: str, method: str, ratio: Any = None, /, **parameters: Any) -> Case:
    """Parameters of a method, given as flags."""
    return refused(message, prune_method=method, prune_ratio=ratio, prune_kwargs=parameters or None)


FLAGS = {
    # prune_method
    "misspelt method": refused(
        rf"Unknown pruning method 'infobach'\. Did you mean 'infobatch'\? {KNOWN}", prune_method="infobach"
    ),
    "method by its class name": refused(
        r"Unknown pruning method 'InfoBatch'\. Did you mean 'infobatch'\?", prune_method="InfoBatch"
    ),
    "policy object for a name": refused(
        rf"chosen by its name, got InfoBatch\(ratio=0\.5.*pass a policy object .* as `policy=`\. {KNOWN}",
        prune_method=InfoBatch(),
    ),
    "list of methods": refused(
        rf"chosen by its name, got \['random', 'infobatch'\]: .*{KNOWN}", prune_method=["random", "infobatch"]
    ),
    "no method at all": refused(rf"chosen by its name, got None: .*{KNOWN}", prune_method=None),
    # prune_ratio
    "ratio is missing": given("Pruning method 'random' needs a value for ratio: set `prune_ratio`", "random"),
    "ratio for none": given("'none' prunes nothing, got a ratio of 0.1: choose another method", "none", 0.1),
    "ratio in percent": given(r"`ratio` of RandomPruning must be a number in \[0, 1\), got 30", "random", 30),
    "ratio of everything": given(r"`ratio` of InfoBatch must be a number in \[0, 1\), got 1\.0", "infobatch", 1.0),
    "ratio as text": given(r"`ratio` of InfoBatch must be a number in \[0, 1\), got '0\.5'", "infobatch", "0.5"),
    "ratio as text, orderdp": given(
        r"The prune ratio of OrderDP must be a number in \[0, 1\), got '0\.5'", "orderdp", "0.5"
    ),
    "negative ratio, orderdp": given(
        r"The prune ratio of OrderDP must be a number in \[0, 1\), got -0\.5", "orderdp", -0.5
    ),
    "ratio out of the pool's reach": given(
        "OrderDP cannot prune only 0.1 with `pool_ratio` 0.8, .* leaves out 0.2: raise `pool_ratio` to at least 0.9",
        "orderdp",
        0.1,
    ),
    "ratio and quantiles": given(
        r"InfoBatch with percentiles \(50,\) has no single ratio, got 0\.3: set `keep_ratios`",
        "infobatch",
        0.3,
        percentiles=[50],
        keep_ratios=[0.5],
    ),
    "ratio twice": given(
        r"`prune_ratio` \(0\.3\) and `ratio` in `prune_kwargs` \(0\.4\) say the same: give one",
        "infobatch",
        0.3,
        ratio=0.4,
    ),
    "ratio and what it sets": given(
        r"`prune_ratio` \(0\.5\) sets `top_ratio` of pruning method 'orderdp', which .* gives too \(0\.3\): give one",
        "orderdp",
        0.5,
        top_ratio=0.3,
    ),
    # prune_kwargs
    "broken JSON": refused(
        r"`prune_kwargs` must be a JSON object, got '\{delta: 1\}' \(Expecting property name", prune_kwargs="{delta: 1}"
    ),
    "JSON that is no object": refused(
        r"`prune_kwargs` must be a mapping or a JSON object, got \[0\.5\]", prune_kwargs="[0.5]"
    ),
    "number for parameters": refused(r"`prune_kwargs` must be a mapping or a JSON object, got 3", prune_kwargs=3),
    "unknown parameter": given(
        "Unknown parameter 'rate' for pruning method 'random', which takes: ratio, rescale", "random", rate=1
    ),
    "parameter for none": given(
        "Unknown parameter 'ratio' for pruning method 'none', which takes: no parameters", "none", ratio=0.5
    ),
    # prune_warmup_epochs
    "negative warm-up": refused(
        "`prune_warmup_epochs` must be a whole number of at least 0, got -1", prune_warmup_epochs=-1
    ),
    "warm-up of half an epoch": refused(
        "`prune_warmup_epochs` must be a whole number of at least 0, got 0.5", prune_warmup_epochs=0.5
    ),
    "warm-up as a switch": refused(
        "`prune_warmup_epochs` must be a whole number of at least 0, got True", prune_warmup_epochs=True
    ),
    # prune_seed
    "fractional seed": refused("`prune_seed` must be a whole number, got 1.5", prune_seed=1.5),
    "seed as a switch": refused("`prune_seed` must be a whole number, got True", prune_seed=True),
    "seed as text": refused("`prune_seed` must be a whole number, got '7'", prune_seed="7"),
    # prune_reproducible_augmentation
    "augmentation as text": refused(
        "`prune_reproducible_augmentation` must be True or False, got 'false'",
        prune_reproducible_augmentation="false",
    ),
    "augmentation as a number": refused(
        "`prune_reproducible_augmentation` must be True or False, got 1", prune_reproducible_augmentation=1
    ),
}

PARAMETERS = {
    # InfoBatch
    "infobatch: ratio below": given(r"`ratio` of InfoBatch must be .* \[0, 1\), got -0\.1", "infobatch", ratio=-0.1),
    "infobatch: ratio NaN": given(
        r"`ratio` of InfoBatch must be .* \[0, 1\), got nan", "infobatch", ratio=float("nan")
    ),
    "infobatch: ratio of a wrong type": given(
        r"`ratio` of InfoBatch must be a number in \[0, 1\), got \[0\.5\]", "infobatch", ratio=[0.5]
    ),
    "infobatch: delta above": refused(
        r"`delta` of InfoBatch must be a number in \[0, 1\], got 2",
        prune_method="infobatch",
        prune_kwargs='{"delta": 2}',
    ),
    "infobatch: delta below": given(r"`delta` of InfoBatch must be .* \[0, 1\], got -0\.5", "infobatch", delta=-0.5),
    "infobatch: delta of a wrong type": given(
        r"`delta` of InfoBatch must be a number in \[0, 1\], got 'all'", "infobatch", delta="all"
    ),
    "infobatch: percentiles alone": given(
        r"`percentiles` and `keep_ratios` of InfoBatch go together: .* got \[50\] and None",
        "infobatch",
        percentiles=[50],
    ),
    "infobatch: keep ratios alone": given(
        r"`percentiles` and `keep_ratios` of InfoBatch go together: .* got None and \[0\.5\]",
        "infobatch",
        keep_ratios=[0.5],
    ),
    "infobatch: percentiles of a wrong type": given(
        "`percentiles` of InfoBatch must be a list of numbers, got 50", "infobatch", percentiles=50, keep_ratios=[0.5]
    ),
    "infobatch: percentiles above": given(
        r"`percentiles` of InfoBatch must ascend inside \(0, 100\), got \(100,\)",
        "infobatch",
        percentiles=[100],
        keep_ratios=[0.5],
    ),
    "infobatch: percentiles descend": given(
        r"`percentiles` of InfoBatch must ascend inside \(0, 100\), got \(85, 20\)",
        "infobatch",
        percentiles=[85, 20],
        keep_ratios=[0.25, 0.5],
    ),
    "infobatch: too few keep ratios": given(
        r"InfoBatch needs one keep ratio per percentile, got \(20, 85\) and \(0\.25,\)",
        "infobatch",
        percentiles=[20, 85],
        keep_ratios=[0.25],
    ),
    "infobatch: keep ratios out of range": given(
        r"`keep_ratios` of InfoBatch must lie in \(0, 1\], got \(0,\)", "infobatch", percentiles=[50], keep_ratios=[0]
    ),
    "infobatch: keep ratios of a wrong type": given(
        r"`keep_ratios` of InfoBatch must be a list of numbers, got \['half'\]",
        "infobatch",
        percentiles=[50],
        keep_ratios=["half"],
    ),
    "infobatch: draw": given(
        "`draw` of InfoBatch must be 'count' or 'bernoulli', got 'coin'", "infobatch", draw="coin"
    ),
    "infobatch: draw of a wrong type": given(
        "`draw` of InfoBatch must be 'count' or 'bernoulli', got True", "infobatch", draw=True
    ),
    "infobatch: exact weights as text": given(
        "`exact_weights` of InfoBatch must be True or False, got 'false'", "infobatch", exact_weights="false"
    ),
    "infobatch: momentum": given(
        r"`momentum` of InfoBatch must be a number in \(0, 1\], got 0", "infobatch", momentum=0
    ),
    "infobatch: momentum of a wrong type": given(
        r"`momentum` of InfoBatch must be a number in \(0, 1\], got '0\.9'", "infobatch", momentum="0.9"
    ),
    # OrderDP
    "orderdp: empty pool": given(
        r"`pool_ratio` of OrderDP must be a number in \(0, 1\], got 0", "orderdp", pool_ratio=0
    ),
    "orderdp: pool of a wrong type": given(
        r"`pool_ratio` of OrderDP must be a number in \(0, 1\], got '80%'", "orderdp", pool_ratio="80%"
    ),
    "orderdp: top ratio": given(r"`top_ratio` of OrderDP must be a number in \(0, 1\], got 2", "orderdp", top_ratio=2),
    "orderdp: top ratio of a wrong type": given(
        r"`top_ratio` of OrderDP must be a number in \(0, 1\], got None", "orderdp", top_ratio=None
    ),
    "orderdp: delta": given(r"`delta` of OrderDP must be a number in \[0, 1\], got 1\.1", "orderdp", delta=1.1),
    "orderdp: delta of a wrong type": given(
        r"`delta` of OrderDP must be a number in \[0, 1\], got True", "orderdp", delta=True
    ),
    # RandomPruning
    "random: ratio": given(r"`ratio` of RandomPruning must be a number in \[0, 1\), got 1", "random", ratio=1),
    "random: ratio of a wrong type": given(
        r"`ratio` of RandomPruning must be a number in \[0, 1\), got 'half'", "random", ratio="half"
    ),
    "random: rescale": given(
        "`rescale` of RandomPruning must be True or False, got 'false'", "random", 0.5, rescale="false"
    ),
    "random: rescale of a wrong type": given(
        "`rescale` of RandomPruning must be True or False, got 1", "random", 0.5, rescale=1
    ),
}


def with_parallelism(place, **sizes):
    trainer = build(place)
    trainer.args.parallelism_config = SimpleNamespace(**{"tp_size": 1, "cp_size": 1, "sp_size": 1, **sizes})
    return trainer


def weighted_sampler(place):
    class Weighted(DynPruneTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.WeightedRandomSampler([1.0] * 22, 22)

    return plain(Weighted, place)


def own_loader(place):
    class Own(DynPruneTrainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=4)

    return plain(Own, place)


def parallel(name: str) -> Case:
    """Processes that do not each hold samples of their own."""
    message = rf"`parallelism_config` has {name}_size 2: .* Use data parallelism \(DDP, FSDP\)"
    return Case(lambda place: with_parallelism(place, **{f"{name}_size": 2}), message, steps=0)


SETTINGS = {
    "compute_loss_func": refused(
        "`compute_loss_func` returns one number per batch, .* pass the loss as `per_sample_loss=fn`",
        compute_loss_func=lambda *args, **kwargs: 0,
    ),
    "batch_rebalance": refused(
        "`train_sampling_strategy` 'batch_rebalance' composes batches itself .* use 'random', 'sequential' or",
        train_sampling_strategy="batch_rebalance",
    ),
    "group_by_length without lengths": first_batch(
        "needs a column 'length' or items with 'input_ids', the items have: pixel_values, labels. Name the column in "
        "`length_column_name`, or use 'random'",
        train_sampling_strategy="group_by_length",
    ),
    "tensor parallelism": parallel("tp"),
    "context parallelism": parallel("cp"),
    "sequence parallelism": parallel("sp"),
    "batches out of order, checkpoints inside epochs": Case(
        lambda place: build(place, dataloader_in_order=False, dataloader_num_workers=2, save_strategy="steps"),
        "`dataloader_in_order=False` with `save_strategy='steps'`: .* Use `save_strategy='epoch'` or load in order",
        needs="dataloader_in_order",
    ),
    "sampler of the user's own": Case(
        weighted_sampler,
        "Weighted has a `_get_train_sampler` of its own, .* Write it as a PruningPolicy, or remove it",
    ),
    "loader of the user's own": Case(
        own_loader, "does not use the trainer's sampler, .* let it return that of `super..`", steps=0
    ),
}
