"""The fields of an epoch's record that are known when the epoch begins, worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hf_dynprune import EpochRecord, PrunePlan

SCORES = [4.0, 1.0, None, 3.0, 2.0, 0.5]
PLAN = PrunePlan(np.array([0, 2, 3, 4]), np.array([1.0, 1.0, 1.0, 3.0], np.float32), 6)


def test_a_record_is_opened_with_what_plan_and_scores_say(view_of):
    record = EpochRecord.opened(2, PLAN, view_of(SCORES), full_steps=3, projected_saving=0.25)
    assert dataclasses.asdict(record) == {
        "epoch": 2,
        "num_samples": 6,
        "kept": 4,
        "forward_passes": 0,
        "steps": 0,
        "nonfinite": 0,
        "ratio": pytest.approx(1 / 3),
        "score_quantiles": [0.5, 1.0, 2.0, 3.0, 4.0],
        "weight_range": [1.0, 3.0],
        "projected_saving": 0.25,
        "full_steps": 3,
        "effective_samples": pytest.approx(6**2 / 12),
        "pruned_scores": [0.5, 1.0],
        "share": 1.0,
        "energy": None,
        "stands_for": None,
        "evaluation_forward_passes": 0,
        **dict.fromkeys(("concentration", "staleness", "held_out", "reason")),
        **dict.fromkeys(("scoring_forward_passes", "candidate_forward_passes", "unlabelled"), 0),
        **dict.fromkeys((f"seconds_{name}" for name in ("plan", "train", "merge", "scoring", "data")), 0.0),
        **dict.fromkeys(("seconds_evaluation", "seconds_checkpoint"), 0.0),
    }


def test_without_scores_and_pruning_there_is_nothing_to_say_of_them(view_of):
    record = EpochRecord.opened(0, PrunePlan.full(6), view_of([None] * 6), full_steps=3, projected_saving=None)
    assert (record.ratio, record.score_quantiles, record.pruned_scores) == (0.0, None, None)
    assert record.effective_samples == record.kept == 6
