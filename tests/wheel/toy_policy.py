"""A user's policy, in a file of its own outside the package."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from hf_dynprune import PrunePlan, PruningPolicy, check_range, count_kept, keep_by_lot, register_policy


@register_policy("toy_policy")
@dataclass(frozen=True)
class ToyPolicy(PruningPolicy):
    """A uniform subset of the samples that have a score, weighted to make up for the others.

    Args:
        ratio: share pruned of the scored samples, in `[0, 1)`.
    """

    ratio: float = 0.25

    reference = "made up"
    unbiased = True

    def __post_init__(self):
        check_range(self, "ratio", 0, 1, high_open=True)

    @property
    def max_ratio(self):
        return self.ratio

    def prunes_in(self, epoch):
        return self.ratio > 0

    def plan(self, view, epoch, rng):
        kept = keep_by_lot(view.scored, count_kept(self.ratio, view.scored.sum()), rng) | ~view.scored
        return PrunePlan.from_weights(kept / self.inclusion_probability(view, epoch))

    def inclusion_probability(self, view, epoch):
        m = np.count_nonzero(view.scored)
        return np.where(view.scored, count_kept(self.ratio, m) / max(m, 1), 1.0)


class Simulated(ToyPolicy):
    """States how often it kept each sample in 50 plans, which is not exact: `closed_form` is False."""

    unbiased = False
    closed_form = False

    def plan(self, view, epoch, rng):
        kept = keep_by_lot(view.scored, count_kept(self.ratio, view.scored.sum()), rng)
        return PrunePlan.from_weights(kept | ~view.scored)

    def inclusion_probability(self, view, epoch):
        rng = np.random.default_rng(0)
        kept = [self.plan(view, epoch, rng).kept_indices for _ in range(50)]
        return np.bincount(np.concatenate(kept), minlength=len(view)) / 50


class SimulatedCoins(Simulated):
    """The same with a coin for each sample, so that the number kept differs between plans."""

    def plan(self, view, epoch, rng):
        kept = (rng.random(len(view)) >= self.ratio) | ~view.scored
        kept[rng.integers(len(view))] = True
        return PrunePlan.from_weights(kept)


# ---- The same with one mistake each ----


class ByPosition(ToyPolicy):
    def plan(self, view, epoch, rng):
        kept = (np.cumsum(view.scored) <= count_kept(self.ratio, view.scored.sum())) | ~view.scored
        return PrunePlan.from_weights(kept / self.inclusion_probability(view, epoch))


class PrunesTheUnseen(ToyPolicy):
    unbiased = False

    def plan(self, view, epoch, rng):
        kept = keep_by_lot(np.ones(len(view), bool), count_kept(self.ratio, len(view)), rng)
        return PrunePlan.from_weights(kept)

    def inclusion_probability(self, view, epoch):
        return np.full(len(view), count_kept(self.ratio, len(view)) / len(view))


class PlainWeights(ToyPolicy):
    def plan(self, view, epoch, rng):
        kept = keep_by_lot(view.scored, count_kept(self.ratio, view.scored.sum()), rng) | ~view.scored
        return PrunePlan.from_weights(kept)


class WrongProbability(ToyPolicy):
    unbiased = False

    def inclusion_probability(self, view, epoch):
        return np.where(view.scored & (super().inclusion_probability(view, epoch) < 1), 0.5, 1.0)


class GlobalGenerator(ToyPolicy):
    def plan(self, view, epoch, rng):
        return super().plan(view, epoch, np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002


class TorchGenerator(ToyPolicy):
    """Seeds torch's generator, so its plans are the same each time. Torch is loaded where the script runs."""

    def plan(self, view, epoch, rng):
        torch = sys.modules["torch"]
        torch.manual_seed(int(rng.integers(2**31)))
        return super().plan(view, epoch, np.random.default_rng(int(torch.randint(2**31, ()))))


class OwnGenerator(ToyPolicy):
    def plan(self, view, epoch, rng):
        return super().plan(view, epoch, np.random.default_rng())


class ChangesScores(ToyPolicy):
    def plan(self, view, epoch, rng):
        view.score[:] = np.nan_to_num(view.score)
        return super().plan(view, epoch, rng)


class PrunesMoreThanItSays(ToyPolicy):
    max_ratio = 0.05


class PrunesWhereItSaysNot(ToyPolicy):
    def prunes_in(self, epoch):
        return epoch.epoch < 5


class NoRatio(ToyPolicy):
    def with_ratio(self, ratio):
        raise TypeError("no field 'ratio'")


class KeepsNothing(ToyPolicy):
    def plan(self, view, epoch, rng):
        return PrunePlan.from_weights(np.zeros(len(view), bool))


class NotInClosedForm(ToyPolicy):
    closed_form = False


class WithoutRatio(ToyPolicy):
    def with_ratio(self, ratio):
        raise ValueError("has no ratio")


class KeepsOneFromEpoch3(WithoutRatio):
    """Its plans are right in the first epochs only."""

    unbiased = False
    max_ratio = 0.99

    def plan(self, view, epoch, rng):
        if epoch.epoch < 3:
            return super().plan(view, epoch, rng)
        return PrunePlan.from_weights(keep_by_lot(view.scored, 1, rng) | ~view.scored)


class PrunesMoreFromEpoch3(KeepsOneFromEpoch3):
    max_ratio = 0.5


class PlainWeightsFromEpoch3(ToyPolicy):
    def plan(self, view, epoch, rng):
        plan = super().plan(view, epoch, rng)
        return plan if epoch.epoch < 3 else PrunePlan(plan.kept_indices, np.ones(plan.num_kept), len(view))


class SaysThatItPrunesNothing(WithoutRatio):
    max_ratio = 0.0


class PrunesALittleMore(WithoutRatio):
    max_ratio = 0.05


class SameForEveryRatio(ToyPolicy):
    def with_ratio(self, ratio):
        return self


class TenPercentOff(ToyPolicy):
    """Keeps a share of 0.5 and says 0.45."""

    unbiased = False

    def inclusion_probability(self, view, epoch):
        p = super().inclusion_probability(view, epoch)
        return np.where(p < 1, 0.9 * p, p)


class FailsToSay(ToyPolicy):
    def max_saved_epochs(self, epochs):
        raise RuntimeError("not known")


@dataclass(frozen=True)
class NotSaved(ToyPolicy):
    table: object = frozenset({1})


@dataclass
class NotFrozen:
    ratio: float = 0.5


BROKEN = {
    ByPosition(): r"ByPosition must treat samples with equal scores alike, got samples .* Break ties by lot",
    PrunesTheUnseen(): "`plan` of PrunesTheUnseen must keep every sample without a score, got .* such as sample",
    PlainWeights(): "A weight of PlainWeights, which claims .* must be the inverse .* got weight 1 at probability 0.",
    WrongProbability(): r"`inclusion_probability` of WrongProbability must be how often .*, got 0\.5 for sample",
    GlobalGenerator(): "GlobalGenerator must draw from the generator it is given alone, .* Use `rng`",
    TorchGenerator(): "TorchGenerator must draw .*, got another state of .* or torch's global generator .* Use `rng`",
    OwnGenerator(): "OwnGenerator must give the same plan and probabilities .* Draw from `rng` alone",
    ChangesScores(): "ChangesScores must change no array of the view, got another `score`",
    PrunesMoreThanItSays(0.5): r"must prune at most `max_ratio` 0\.05 of the samples, got 12 pruned of 24",
    PrunesWhereItSaysNot(): "in epoch 5 of 10, in which `prunes_in` is False, must keep every sample at weight 1",
    NoRatio(): r"`with_ratio\(0\)` of NoRatio raised TypeError: no field 'ratio'. Override it",
    KeepsOneFromEpoch3(0.5): r"`inclusion_probability` of KeepsOne.* how often .*, got .* plans in epoch 3 of 10\.",
    PrunesMoreFromEpoch3(0.5): r"must prune at most `max_ratio` 0\.5 of the samples, got .* in epoch 3 of 10\.",
    PlainWeightsFromEpoch3(0.5): "A weight of PlainWeightsFromEpoch3, .* inverse .* in epoch 3 of 10",
    SaysThatItPrunesNothing(0.08): r"must prune at most `max_ratio` 0 of the samples, got 1 pruned of 2 ",
    PrunesALittleMore(0.08): r"must prune at most `max_ratio` 0\.05 of the samples, got 80 pruned of 1000",
    SameForEveryRatio(): r"`with_ratio` of SameForEveryRatio must prune more for a larger ratio, from 0 to 0\.95",
    TenPercentOff(0.5): "inclusion_probability` of TenPercentOff must be ",
    FailsToSay(): "`max_saved_epochs` of FailsToSay raised RuntimeError for 10 epochs: not known",
    KeepsNothing(): "`plan` of KeepsNothing raised ValueError for 1 samples, .*: A plan must keep at least one index",
    NotInClosedForm(): "NotInClosedForm, whose .* must not claim to be unbiased",
    NotSaved(): r"`table` of NotSaved cannot be written to a checkpoint, got frozenset\(\{1\}\)",
    "not_frozen": "`policy` must be a PruningPolicy object such as InfoBatch.., a frozen dataclass, got 'not_frozen'",
}
"""What is wrong with each, as the message says it."""
