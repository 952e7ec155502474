"""What a finished epoch says of the worth of choosing samples, from the fold of its scores."""

from __future__ import annotations

from ..decisions.plan import PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.proxy import GradientProxy
from ..decisions.scores import ScoreView
from ..decisions.worth import StalenessMeter, proxy_sums


def staleness_meter(
    policy: PruningPolicy, plan: PrunePlan, view: ScoreView, proxy: GradientProxy
) -> StalenessMeter | None:
    """What adds up R while an epoch is folded, from the scores before it.

    Weights that make up for what is left out say how probable each sample was. None where they do not: visits of the
    samples that a method prefers tell nothing of the others.
    """
    if not (plan.is_full or policy.unbiased or policy.unbiased_up_to_factor):
        return None
    return StalenessMeter(proxy, proxy_sums(view, proxy).mean, plan)
