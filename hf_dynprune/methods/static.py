"""Static pruning: every epoch trains on the same share of the samples, chosen by scores made before the run.

EL2N, GraNd and forgetting counts keep the highest scores.
When to use: as the baseline of dynamic methods, or where one chosen subset serves many runs.
Flags: `--prune_method static --prune_ratio 0.3 --prune_kwargs '{"scores": "el2n.safetensors"}'`
Cost: O(N) per selection, and the training that makes the scores, which is charged to the run.

    kept = the k samples with the largest (or smallest) score,  k = max(1, floor((1 - ratio) N))
    p_i = 1 beyond the cut, (k - a) / t for the t samples tied at it with a beyond, else 0

Sources: Toneva et al., "An Empirical Study of Example Forgetting", ICLR 2019, arXiv 1812.05159; Paul et al., "Deep
Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075. The authors' code breaks ties by position in the data; here
they are broken by lot, once for the run. Forgetting counts are mostly equal, so class-sorted data would lose classes.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.words import counted
from ..decisions.draws import count_kept, keep_largest, largest_probability
from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy, check_range
from ..decisions.registry import register_policy
from ..decisions.scores import ScoreView
from ..records.score_file import StaticScores, load_scores, score_digest

ARRAY = "array"
"""Stands in `parameters` for scores that were not given as a path; `digest` tells which."""


@register_policy("static")
@dataclass(frozen=True, eq=False)
class StaticPruning(PruningPolicy):
    """The samples with the highest (or lowest) of scores made before the run: the same ones in every epoch.

    Args:
        scores: path of a score file (`hf-dynprune score` writes one), a `StaticScores`, or numbers `[N]`, finite.
        ratio: share pruned of all samples, in `[0, 1)`.
        keep: "highest" or "lowest": which end of the scores is trained on.
        digest: of the scores, worked out if not given; a checkpoint names it, and other scores are refused.

    Examples:
        >>> policy = StaticPruning([0.1, 0.9, 0.5, 0.7], 0.5)
        >>> epoch = EpochInfo(0, 10, 0.0, seed=0)
        >>> policy.plan(ScoreView(*[np.zeros(4)] * 3), epoch, epoch.generator("plan")).kept_indices.tolist()
        [1, 3]
    """

    scores: str | os.PathLike[str] | StaticScores | ArrayLike
    ratio: float
    keep: str = "highest"
    digest: str | None = None

    reference = (
        "Toneva et al.: An Empirical Study of Example Forgetting, ICLR 2019, arXiv 1812.05159 (forgetting); "
        "Paul et al.: Deep Learning on a Data Diet, NeurIPS 2021, arXiv 2107.07075 (EL2N, GraNd)"
    )
    reads_scores = False
    period = None

    def __post_init__(self) -> None:
        check_range(self, "ratio", 0, 1, high_open=True)
        if self.keep not in ("highest", "lowest"):
            raise ValueError(f"`keep` of StaticPruning must be 'highest' or 'lowest', got {self.keep!r}.")
        given: Any = self.scores
        if isinstance(given, StaticScores):
            score = _checked_scores(given.score)
            object.__setattr__(self, "scores", StaticScores(score, given.runs, dict(given.facts)))
        else:
            is_path = isinstance(given, (str, os.PathLike))
            object.__setattr__(self, "scores", os.fspath(given) if is_path else _checked_scores(given))
        digest = score_digest(self.stored.score)
        if self.digest not in (None, digest):
            raise ValueError(
                f"`digest` of StaticPruning is {self.digest!r}, the scores have {digest!r}: they are not those that "
                "were asked for. Use the same score file, or leave `digest` out."
            )
        object.__setattr__(self, "digest", digest)

    @property
    def unbiased(self) -> bool:
        """A sample that was not chosen is never trained on."""
        return False

    @cached_property
    def stored(self) -> StaticScores:
        """The scores, read once; for an array, without a description of how they were made."""
        if isinstance(self.scores, StaticScores):
            return self.scores
        if not isinstance(self.scores, str):
            score = np.asarray(self.scores)
            return StaticScores(score, score[None], {})
        if self.scores == ARRAY:
            raise ValueError(
                "`scores` of StaticPruning were given as an array, which its parameters do not hold: pass the array "
                "itself, or the path of a score file."
            )
        return load_scores(self.scores)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.parameters() == other.parameters()

    def __hash__(self) -> int:
        return hash((self.digest, self.ratio, self.keep))

    def parameters(self) -> dict[str, Any]:
        """Field values; where the scores were not given as a path, 'array' stands for them."""
        scores = self.scores if isinstance(self.scores, str) else ARRAY
        return {"scores": scores, "ratio": float(self.ratio), "keep": self.keep, "digest": self.digest}

    def identity(self) -> dict[str, Any]:
        """The parameters without the scores' place: `digest` says which scores they are."""
        return {key: value for key, value in self.parameters().items() if key != "scores"}

    def with_ratio(self, ratio: float) -> StaticPruning:
        """A copy with the same scores that prunes another share; a file is not read again."""
        twin = copy.copy(self)
        object.__setattr__(twin, "ratio", ratio)
        check_range(twin, "ratio", 0, 1, high_open=True)
        return twin

    @property
    def max_ratio(self) -> float:
        return self.ratio

    @property
    def scoring_forward_passes(self) -> int:
        """From the description stored with the scores; 0 for an array, whose cost is not known here."""
        return int(self.stored.facts.get("forward_passes", 0))

    @property
    def scoring_seconds(self) -> float:
        return float(self.stored.facts.get("seconds", 0.0))

    def check_data(self, num_samples: int, fingerprint: str) -> None:
        """Raise a ValueError unless the scores are of this data set, as far as length and fingerprint tell."""
        self._check_length(num_samples)
        scored = self.stored.facts.get("fingerprint", fingerprint)
        if scored != fingerprint:
            what = f"score file {self.scores}" if isinstance(self.scores, str) else "`StaticScores` given"
            raise ValueError(
                f"The {what} was made for another data set or order: fingerprint {scored} there, "
                f"{fingerprint} here (length, columns and labels). Score this data set; or, if you know that the "
                "samples are the same in the same order, pass their `score` array (`load_scores(path).score`), which "
                "is not compared."
            )

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return self.ratio > 0

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        """The k first by score, ties at the cut by lot."""
        n = len(view)
        self._check_length(n)
        k = count_kept(self.ratio, n)
        return PrunePlan.from_weights(keep_largest(np.ones(n, bool), k, self._ranked, rng))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> NDArray[np.float64]:
        """1 beyond the cut, 0 below it; samples tied at the cut share the places that are left."""
        self._check_length(len(view))
        return largest_probability(self._ranked, count_kept(self.ratio, len(view)))

    @property
    def _ranked(self) -> NDArray[np.float32]:
        return self.stored.score if self.keep == "highest" else -self.stored.score

    def _check_length(self, num_samples: int) -> None:
        if len(self.stored) != num_samples:
            where = f" in {self.scores}" if isinstance(self.scores, str) else ""
            raise ValueError(
                f"StaticPruning has {counted(len(self.stored), 'score')}{where}, the training set has "
                f"{counted(num_samples, 'sample')}: "
                "one score per sample is needed, in the data set's order."
            )


def _checked_scores(given: Any) -> NDArray[np.float32]:
    """A read-only copy, float32 `[N]`."""
    try:
        with np.errstate(over="ignore"):  # infinite in float32 is refused below
            score = np.array(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`scores` of StaticPruning must be the path of a score file, a StaticScores or numbers [N], got {given!r}."
        ) from error
    if score.ndim != 1 or score.size == 0:
        raise ValueError(f"`scores` of StaticPruning must be numbers [N], N >= 1, got shape {score.shape}.")
    if not np.isfinite(score).all():
        at = int(np.argmin(np.isfinite(score)))
        raise ValueError(f"`scores` of StaticPruning must be finite, got {score[at]} for sample {at}.")
    score.flags.writeable = False
    return score
