"""What a finished epoch says of the data: of the worth of choosing samples, and of those that have no labels."""

from __future__ import annotations

from ..common.logs import logger
from ..common.words import counted
from ..decisions.plan import PrunePlan
from ..decisions.policy import PruningPolicy
from ..decisions.proxy import GradientProxy
from ..decisions.scores import ScoreView
from ..decisions.worth import StalenessMeter, proxy_sums
from ..records.record import EpochRecord


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


def say_unlabelled(record: EpochRecord, recorded: int) -> bool:
    """Log in how many of an epoch's recorded samples nothing was labelled, and whether there are any.

    It is a warning where it is so in all of them.
    """
    if record.unlabelled and record.unlabelled >= recorded:
        logger.warning(
            "Epoch %d: no label in any of its %s, so nothing is learned.", record.epoch + 1, counted(recorded, "sample")
        )
    elif record.unlabelled:
        logger.info(
            "Epoch %d: no label in %d of its %s. Those have no gradient, and count as samples with a loss of 0. This "
            "is said once.",
            *(record.epoch + 1, record.unlabelled, counted(recorded, "sample")),
        )
    return record.unlabelled > 0
