"""What a finished epoch says of the worth of choosing samples, from the fold of its scores."""

from __future__ import annotations

from ..decisions.plan import EpochInfo, PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.proxy import GradientProxy
from ..decisions.scores import ScoreView
from ..decisions.worth import StalenessMeter, proxy_sums


def staleness_meter(
    policy: PruningPolicy, plan: PrunePlan, view: ScoreView, info: EpochInfo, proxy: GradientProxy
) -> StalenessMeter | None:
    """What adds up R while an epoch is folded, from the scores that its plan was made by.

    None where it is not known how probable each sample was: the method has no closed form or does not give it, or holds a plan that was
    made from older scores. Weights that make up for what is left out say it themselves.
    """
    mean = proxy_sums(view, proxy).mean
    if plan.is_full:
        return StalenessMeter(proxy, mean, plan)
    if policy.unbiased:
        return StalenessMeter(proxy, mean, plan, 1.0 / plan.weights.astype("float64"))
    if not policy.closed_form or policy.period_start(info.epoch) != info.epoch:
        return None
    try:
        probability = policy.inclusion_probability(view, info)
    except NotImplementedError:  # a policy of the user's, to which nobody else asked for it
        return None
    return StalenessMeter(proxy, mean, plan, probability[plan.kept_indices])
