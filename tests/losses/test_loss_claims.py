"""Which of the package's own per-sample losses a model gets must not depend on the order of their files."""

from __future__ import annotations

import pytest

from hf_dynprune.losses import find_loss, registry
from tests.support.task_models import PAIRS, Pair


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.task)
def test_at_most_one_loss_of_the_package_claims_a_model(pair: Pair):
    model = pair.make()
    find_loss(model)  # reads all files of losses
    own = [(matches, factory) for matches, factory in registry._LOSSES if factory.__module__.startswith("hf_dynprune.")]
    assert len(own) > 5
    claims = [factory.__name__ for matches, factory in own if matches(model)]
    assert len(claims) <= 1, f"{type(model).__name__} is claimed by {' and '.join(claims)}"
