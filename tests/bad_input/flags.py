"""Pruning flags, the methods' parameters, and settings of the Trainer that do not go with pruning."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from transformers import Trainer

from hf_dynprune import DynPruneMixin, DynPruneTrainer, InfoBatch, StaticPruning, list_policies
from hf_dynprune.records.score_file import ScoreFileError, StaticScores
from tests.bad_input import Case, build, first_batch, plain, refused

SIZE = 22
"""Of the data set that a trainer of the catalogue has."""

KNOWN = f"Known methods: {', '.join(list_policies())}"


def given(
    message: str, method: str, ratio: Any = None, /, error: type[Exception] = ValueError, **parameters: Any
) -> Case:
    """Parameters of a method, given as flags."""
    flags = {"prune_method": method, "prune_ratio": ratio, "prune_kwargs": parameters or None}
    return Case(lambda place: build(place, **flags), message, error)


def targeted(message: str, target: Any = 0.3, method: str = "random", **flags: Any) -> Case:
    """A share of the forward passes to save, given as a flag."""
    return refused(message, prune_target_saving=target, prune_method=method, **flags)


def scored(message: str, size: int = SIZE, steps: int | None = None, **parameters: Any) -> Case:
    """The method static with a sound score file of that many samples, but for these parameters."""

    def act(place):
        score = np.arange(size, dtype=np.float32)
        file = StaticScores(score, score[None], {}).save(place / "own.safetensors")
        return build(place, prune_method="static", prune_kwargs={"scores": str(file), "ratio": 0.3, **parameters})

    return Case(act, message, steps=steps)


def in_memory(**facts: Any) -> StaticScores:
    """Sound scores with these facts."""
    score = np.arange(SIZE, dtype=np.float32)
    return StaticScores(score, score[None], facts)


def file_of(place: Path, values: Any) -> Path:
    """A score file with digests that are right, of what is no score."""
    file = in_memory().save(place / "bad.safetensors")
    array = np.array(values, np.float32)
    tensors = save({"score": array, "runs": np.ones((1, 2), np.float32)})
    file.write_bytes(tensors)
    beside = file.with_suffix(".json")
    content = json.loads(beside.read_text()) | {"tensors_sha256": hashlib.sha256(tensors).hexdigest()}
    beside.write_text(json.dumps(content))
    return file


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
    # prune_target_saving
    "target in percent": targeted(r"`prune_target_saving` must be .* \(0, 1\), got 30: .* Leave it out to", 30),
    "target of nothing": targeted(
        r"`prune_target_saving` must be .* \(0, 1\), got 0\.0: the share of", 0.0, "infobatch"
    ),
    "target of everything": targeted(r"`prune_target_saving` must be .* \(0, 1\), got 1\.0: the share of", 1.0),
    "target negative": targeted(r"`prune_target_saving` must be .* \(0, 1\), got -0\.2: the share of", -0.2, "orderdp"),
    "target NaN": targeted(r"`prune_target_saving` must be .* \(0, 1\), got nan: the share of", float("nan")),
    "target as text": targeted(r"`prune_target_saving` must be .* \(0, 1\), got '0\.3': the share of", "0.3"),
    "target as a switch": targeted(r"`prune_target_saving` must be .* \(0, 1\), got True: the share of", True, "ucb"),
    "target and ratio": targeted(
        r"`prune_target_saving` \(0\.3\) and `prune_ratio` \(0\.5\) both say how much to prune: give one",
        prune_ratio=0.5,
    ),
    "target and fixed steps": targeted(
        r"`prune_target_saving` \(0\.3\) with `max_steps` \(10\): .* Set `num_train_epochs` instead, or prune with",
        max_steps=10,
    ),
    "target and quantiles": targeted(
        r"`prune_target_saving` 0\.3 is .* a method's ratio, and infobatch\(.*percentiles=\(20,\).* has none",
        method="infobatch",
        prune_kwargs={"percentiles": [20], "keep_ratios": [0.5]},
    ),
    "target for none": targeted(
        r"`prune_target_saving` 0\.3 is .* and none\(\) has none that can be set\. Choose another method", method="none"
    ),
    "target out of reach": targeted(
        r"`prune_target_saving` 0\.9 cannot be reached: infobatch may prune in 6 of 8 epochs, at most 0\.9 each, .* "
        r"67\.5%\. Lower the target, raise `num_train_epochs`, or let more epochs prune",
        0.9,
        "infobatch",
        num_train_epochs=8,
    ),
    "target out of reach by warm-up": targeted(
        "`prune_target_saving` 0.5 cannot be reached: random may prune in 1 of 3 epochs",
        0.5,
        prune_warmup_epochs=2,
    ),
    "target below one epoch": targeted(
        r"`prune_target_saving` 0\.05 is less than orderdp saves by pruning in one single epoch \(20\.0%\)\. Raise",
        0.05,
        "orderdp",
        prune_kwargs={"pool_ratio": 0.4},
    ),
    # prune_budget
    "unknown budget": refused(
        r"`prune_budget` must be 'passes' or 'steps', got 'epochs': leave it out for the method's own",
        prune_budget="epochs",
    ),
    "budget as a number": refused("`prune_budget` must be 'passes' or 'steps', got 100", prune_budget=100),
    "budget of steps without their number": refused(
        r"`prune_budget` \('steps'\) without a number of steps: set `prune_target_saving` to .* or `max_steps`",
        prune_budget="steps",
    ),
    "budget of steps, fixed twice": targeted(
        r"`prune_target_saving` \(0\.3\) with `max_steps` \(10\): a fixed number",
        max_steps=10,
        prune_budget="steps",
        prune_ratio=0.3,
    ),
    "budget of passes with fixed steps": refused(
        r"`prune_budget` \('passes'\) with `max_steps` \(10\): a fixed number of steps leaves the passes open\. Remove",
        prune_budget="passes",
        max_steps=10,
    ),
    "budget of steps of no epochs": targeted(
        r"`num_train_epochs` must be above 0, got 0", prune_budget="steps", prune_ratio=0.5, num_train_epochs=0
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
    # prune_max_unseen_epochs
    "a limit on epochs unseen beside dropped batches": refused(
        r"`dataloader_drop_last` \(True\) with a limit on the epochs that a sample may stay unseen .* Set",
        prune_max_unseen_epochs=3,
        prune_method="random",
        prune_ratio=0.5,
        dataloader_drop_last=True,
    ),
    "no epoch unseen": refused(
        "`prune_max_unseen_epochs` must be a whole number of at least 1, got 0: leave it out for no limit, or",
        prune_max_unseen_epochs=0,
    ),
    "unseen for half an epoch": refused(
        "`prune_max_unseen_epochs` must be a whole number of at least 1, got 2.5", prune_max_unseen_epochs=2.5
    ),
    "unseen as a switch": refused(
        "`prune_max_unseen_epochs` must be a whole number of at least 1, got True", prune_max_unseen_epochs=True
    ),
    "unseen for less than the period": refused(
        "`max_unseen_epochs` 3 cannot be kept with ucb, whose plan holds for 10 epochs: raise it to at least 10, or",
        prune_method="ucb",
        prune_max_unseen_epochs=3,
    ),
    "unseen in a static run": refused(
        r"`max_unseen_epochs` 3 cannot be kept with static, whose plan holds for the whole run \(period None\): what",
        policy=StaticPruning(range(22), 0.5),
        prune_max_unseen_epochs=3,
    ),
    # prune_class_floor
    "floor of nothing": refused(
        r"`prune_class_floor` must be a number in \(0, 1\], got 0\.0: the share of each class", prune_class_floor=0.0
    ),
    "floor in percent": refused(r"`prune_class_floor` must be a number in \(0, 1\], got 30", prune_class_floor=30),
    "floor as text": refused(r"`prune_class_floor` must be a number in \(0, 1\], got '0\.1'", prune_class_floor="0.1"),
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
    "orderdp: weighting": given(
        "`weighting` of OrderDP must be 'none' or 'ipw', got 'exact'", "orderdp", weighting="exact"
    ),
    "orderdp: weighting of a wrong type": given(
        "`weighting` of OrderDP must be 'none' or 'ipw', got None", "orderdp", weighting=None
    ),
    "orderdp: largest weight": given(
        r"`max_weight` of OrderDP must be a number in \[1, 1e\+30\], got 0\.5", "orderdp", max_weight=0.5
    ),
    "orderdp: largest weight infinite": given(
        r"`max_weight` of OrderDP must be a number in \[1, 1e\+30\], got inf", "orderdp", max_weight=float("inf")
    ),
    "orderdp: largest weight of a wrong type": given(
        r"`max_weight` of OrderDP must be a number in \[1, 1e\+30\], got '10'", "orderdp", max_weight="10"
    ),
    # EpsilonGreedy
    "epsilon_greedy: no ratio": given(
        "Pruning method 'epsilon_greedy' needs a value for ratio: set `prune_ratio`", "epsilon_greedy", epsilon=0.2
    ),
    "epsilon_greedy: ratio": given(
        r"`ratio` of EpsilonGreedy must be a number in \[0, 1\), got 1\.0", "epsilon_greedy", 1.0
    ),
    "epsilon_greedy: epsilon above": given(
        r"`epsilon` of EpsilonGreedy must be a number in \[0, 1\], got 10", "epsilon_greedy", 0.5, epsilon=10
    ),
    "epsilon_greedy: epsilon of a wrong type": given(
        r"`epsilon` of EpsilonGreedy must be a number in \[0, 1\], got '0\.1'", "epsilon_greedy", 0.5, epsilon="0.1"
    ),
    "epsilon_greedy: alpha": given(
        r"`alpha` of EpsilonGreedy must be a number in \(0, 1\], got 0", "epsilon_greedy", 0.5, alpha=0
    ),
    "epsilon_greedy: alpha of a wrong type": given(
        r"`alpha` of EpsilonGreedy must be a number in \(0, 1\], got None", "epsilon_greedy", 0.5, alpha=None
    ),
    "epsilon_greedy: period": given(
        "`period` of EpsilonGreedy must be a whole number of at least 1, got 0", "epsilon_greedy", 0.5, period=0
    ),
    "epsilon_greedy: period of a wrong type": given(
        "`period` of EpsilonGreedy must be a whole number of at least 1, got '10'", "epsilon_greedy", 0.5, period="10"
    ),
    # UCB
    "ucb: ratio": given(r"`ratio` of UCB must be a number in \[0, 1\), got -0\.1", "ucb", ratio=-0.1),
    "ucb: ratio of a wrong type": given(r"`ratio` of UCB must be a number in \[0, 1\), got None", "ucb", ratio=None),
    "ucb: c": given(r"`c` of UCB must be a number in \[0, 1e\+30\], got -1", "ucb", c=-1),
    "ucb: c of a wrong type": given(r"`c` of UCB must be a number in \[0, 1e\+30\], got \[1\]", "ucb", c=[1]),
    "ucb: alpha": given(r"`alpha` of UCB must be a number in \(0, 1\], got 1\.5", "ucb", alpha=1.5),
    "ucb: alpha of a wrong type": given(r"`alpha` of UCB must be a number in \(0, 1\], got True", "ucb", alpha=True),
    "ucb: period": given("`period` of UCB must be a whole number of at least 1, got -10", "ucb", period=-10),
    "ucb: period of half an epoch": given(
        "`period` of UCB must be a whole number of at least 1, got 2.5", "ucb", period=2.5
    ),
    # StaticPruning
    "static: no scores": given("Pruning method 'static' needs a value for scores: set scores in", "static", 0.3),
    "static: no file": given(
        "nowhere.safetensors is no usable score file: there is no .*nowhere.safetensors. Make it anew with",
        "static",
        0.3,
        error=ScoreFileError,
        scores="nowhere.safetensors",
    ),
    "static: another file": given(
        "path of a score file must end in .safetensors, got 'scores.csv'",
        "static",
        0.3,
        error=ScoreFileError,
        scores="scores.csv",
    ),
    "static: number for scores": given(
        r"`scores` of StaticPruning must be numbers \[N\], N >= 1, got shape \(\)", "static", 0.3, scores=3
    ),
    "static: scores of a wrong type": given(
        r"`scores` of StaticPruning must be the path of a score file, a StaticScores or numbers \[N\], got \['high'\]",
        "static",
        0.3,
        scores=["high"],
    ),
    "static: score NaN": given(
        "`scores` of StaticPruning must be finite, got nan for sample 1", "static", 0.3, scores=[1.0, float("nan")]
    ),
    "static: scores of a checkpoint's array": given(
        "`scores` of StaticPruning were given as an array, which its parameters do not hold: pass the array itself",
        "static",
        0.3,
        scores="array",
    ),
    "static: too few scores": scored(
        "StaticPruning has 21 scores in .*own.safetensors, the training set has 22 samples: one score per sample",
        size=SIZE - 1,
        steps=0,
    ),
    "static: score NaN in a file": Case(
        lambda place: StaticPruning(file_of(place, [1.0, float("nan")]), 0.3),
        "bad.safetensors is no usable score file: it does not hold scores .*but that of sample 1 is not.*Make it anew",
        ScoreFileError,
    ),
    "static: table of scores in a file": Case(
        lambda place: StaticPruning(file_of(place, [[1.0, 2.0]]), 0.3),
        r"bad.safetensors is no usable score file: .*`score` must be \[N\] and `runs` \[R, N\], got shapes \(1, 2\)",
        ScoreFileError,
    ),
    "static: scores in memory of other data": Case(
        lambda place: build(place, policy=StaticPruning(in_memory(fingerprint="abc"), 0.3)),
        "The `StaticScores` given was made for another data set or order: fingerprint abc there, [0-9a-f]{16} here",
        steps=0,
    ),
    "static: ratio": scored(r"`ratio` of StaticPruning must be a number in \[0, 1\), got 1\.$", ratio=1),
    "static: ratio of a wrong type": scored(
        r"`ratio` of StaticPruning must be a number in \[0, 1\), got 'half'", ratio="half"
    ),
    "static: keep": scored("`keep` of StaticPruning must be 'highest' or 'lowest', got 'hardest'", keep="hardest"),
    "static: keep of a wrong type": scored(
        "`keep` of StaticPruning must be 'highest' or 'lowest', got True", keep=True
    ),
    "static: digest": scored(
        "`digest` of StaticPruning is 'abc', the scores have '[0-9a-f]{16}': .* Use the same score file, or leave",
        digest="abc",
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
    trainer = build(place, prune_method="infobatch")
    trainer.args.parallelism_config = SimpleNamespace(**{"tp_size": 1, "cp_size": 1, "sp_size": 1, **sizes})
    return trainer


def weighted_sampler(place):
    class Weighted(DynPruneTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.WeightedRandomSampler([1.0] * 22, 22)

    return plain(Weighted, place)


def combined_loader(place):
    class Loading(Trainer):
        def get_train_dataloader(self):
            return super().get_train_dataloader()

    return plain(type("Combined", (DynPruneMixin, Loading), {}), place)


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
    "batch_rebalance": refused(
        "`train_sampling_strategy` 'batch_rebalance' composes batches itself .* use 'random', 'sequential' or",
        train_sampling_strategy="batch_rebalance",
        prune_method="infobatch",
    ),
    "group_by_length without lengths": first_batch(
        "needs a column 'length' or items with 'input_ids', the items have: pixel_values, labels. Name the column in "
        "`length_column_name`, or use 'random'",
        train_sampling_strategy="group_by_length",
        prune_method="infobatch",
    ),
    "tensor parallelism": parallel("tp"),
    "context parallelism": parallel("cp"),
    "sequence parallelism": parallel("sp"),
    "batches out of order, checkpoints inside epochs": Case(
        lambda place: build(
            place, dataloader_in_order=False, dataloader_num_workers=2, save_strategy="steps", prune_method="infobatch"
        ),
        "`dataloader_in_order=False` with `save_strategy='steps'`: .* Use `save_strategy='epoch'` or load in order",
        needs="dataloader_in_order",
    ),
    "sampler of the user's own": Case(
        weighted_sampler,
        "Weighted has a `_get_train_sampler` of its own, .* Write it as a PruningPolicy, or remove it",
    ),
    "loader of a combined trainer": Case(
        combined_loader,
        "Loading has a `get_train_dataloader` of its own, which Combined would not use: .* or use a selector",
    ),
    "loader of the user's own": Case(
        own_loader, "does not use the trainer's sampler, .* let it return that of `super..`", steps=0
    ),
}
