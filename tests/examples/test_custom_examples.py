"""The examples of a policy and of a loss of one's own: run small, and held to what they and their pages say."""

from __future__ import annotations

import ast
import re
from unittest import mock

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the digits are scikit-learn's")

from hf_dynprune import EpochInfo, ScoreView
from hf_dynprune.losses import find_loss
from hf_dynprune.readers.digits import load_digits_task
from hf_dynprune.testing import check_loss, check_policy
from tests.support.example_scripts import EXAMPLES, example_script

ROOT = EXAMPLES.parent
FEW = ["--disable_tqdm", "true", "--seeds", "0", "--num_train_epochs", "3", "--use_cpu", "true"]


@pytest.fixture(scope="module")
def policy_example():
    with example_script("custom_policy") as module:
        yield module


@pytest.fixture(scope="module")
def loss_example():
    with example_script("custom_loss") as module:
        yield module


@pytest.fixture
def few_digits(monkeypatch):
    def shorten(example):
        monkeypatch.setattr(example, "load_digits_task", lambda: load_digits_task(96, 40))

    return shorten


# ---- The policy ----


def test_the_policy_saves_what_random_saves(policy_example, few_digits, tmp_path, capsys):
    few_digits(policy_example)
    full, random, own = policy_example.main([*FEW, "--output_dir", str(tmp_path)])
    assert [full.name, random.name, own.name] == ["none", "random", "loss_proportional"]
    assert full.forward_passes == 3 * 96
    assert random.saved == pytest.approx(1 / 3, abs=0.02)
    assert own.saved == pytest.approx(1 / 3, abs=0.02)
    assert f"| loss_proportional |     1 | {100 * own.metrics['accuracy']:10.1f} |" in capsys.readouterr().out


def test_its_name_is_a_flag(policy_example):
    _, args = policy_example.parse(["--prune_method", "loss_proportional", "--prune_kwargs", '{"floor": 0.2}'])
    assert args.build_policy() == policy_example.LossProportional(ratio=0.5, floor=0.2)
    with pytest.raises(ValueError, match=r"`floor` of LossProportional must be a number in \(0, 1\], got 0"):
        policy_example.LossProportional(floor=0)


@pytest.mark.parametrize(
    ("score", "count", "floor", "expected"),
    [
        ([1, 2, 3, 4], 2, 1.0, [0.5, 0.5, 0.5, 0.5]),
        ([5, 5, 5, 5], 1, 0.5, [0.25, 0.25, 0.25, 0.25]),
        # e = 0, 1, 2, 3, mean 1.5; shares 0.75, 1.25, 1.75, 2.25, sum 6; two of them: c = 1/3
        ([1, 2, 3, 4], 2, 0.5, [0.25, 1.25 / 3, 1.75 / 3, 0.75]),
        # e = 0, 0, 0, 8, mean 2; shares 1, 1, 1, 5; c = 1/4 would keep the last 1.25 times: once, and one of the others
        ([1, 1, 1, 9], 2, 0.5, [1 / 3, 1 / 3, 1 / 3, 1]),
    ],
)
def test_probabilities_worked_out_by_hand(policy_example, score, count, floor, expected):
    found = policy_example.proportional(np.array(score, np.float32), count, floor)
    np.testing.assert_allclose(found, expected)


def test_the_sum_of_the_kept_losses_is_that_of_all_in_expectation(policy_example):
    """And varies less than with a uniform choice of as many, which is what the losses are read for."""
    rng = np.random.default_rng(0)
    score = rng.exponential(size=60).astype(np.float32)
    view = ScoreView(score, np.ones(60, bool), np.zeros(60, bool))
    spread = {}
    for floor in (0.3, 1.0):
        policy = policy_example.LossProportional(ratio=0.5, floor=floor)
        plans = [policy.plan(view, EpochInfo(1, 10, 0.1, 0), rng) for _ in range(2000)]
        assert {plan.num_kept for plan in plans} == {30}
        sums = np.array([(plan.weights * score[plan.kept_indices]).sum() for plan in plans])
        assert sums.mean() == pytest.approx(score.sum(), abs=4 * sums.std() / np.sqrt(len(sums)))
        spread[floor] = sums.std()
    assert spread[0.3] < spread[1.0] / 2


@pytest.mark.parametrize("parameters", [{}, {"ratio": 0.9, "floor": 0.1}, {"ratio": 0.0}, {"floor": 1.0}])
def test_it_holds_to_what_the_built_in_methods_are_held_to(policy_example, parameters):
    check_policy(policy_example.LossProportional(**parameters))


# ---- The losses ----


def test_both_losses_are_trained_with(loss_example, few_digits, tmp_path, capsys, monkeypatch):
    few_digits(loss_example)
    focal_loss, batches = loss_example.focal_loss, []

    def counted(model, inputs, outputs):
        batches.append(len(inputs["labels"]))
        return focal_loss(model, inputs, outputs)

    monkeypatch.setattr(loss_example, "focal_loss", counted)
    runs = loss_example.main([*FEW, "--output_dir", str(tmp_path)])
    names = ["focal, none", "focal, infobatch", "reading and restoring, none", "reading and restoring, infobatch"]
    assert [run.name for run in runs] == names
    assert sum(batches) >= runs[0].forward_passes + runs[1].forward_passes, "each sample's focal loss was taken"
    for full, pruned in (runs[:2], runs[2:]):
        assert full.forward_passes == 3 * 96
        assert pruned.forward_passes < full.forward_passes
    histories = tmp_path.rglob("dynprune_history.jsonl")
    folders = {f"{run}-seed0/{loss}" for run in ("none", "infobatch") for loss in ("focal", "reading_and_restoring")}
    assert {file.parent.relative_to(tmp_path).as_posix() for file in histories} == folders
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in names)


def test_the_focal_loss_with_gamma_zero_is_cross_entropy(loss_example, monkeypatch):
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1])
    outputs = mock.Mock(logits=logits)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    model, batch = reader_and_batch(loss_example)
    check_loss(loss_example.focal_loss, model, batch)
    focal = loss_example.focal_loss(None, {"labels": labels}, outputs)
    assert (focal < each).all()
    monkeypatch.setattr(loss_example, "GAMMA", 0.0)
    torch.testing.assert_close(loss_example.focal_loss(None, {"labels": labels}, outputs), each)


def reader_and_batch(example):
    torch.manual_seed(0)
    model = example.RestoringReader(example.RestoringReaderConfig(pixels=16, width=8, classes=3)).double()
    batch = {"pixel_values": torch.randn(5, 1, 4, 4, dtype=torch.float64), "labels": torch.tensor([0, 1, 2, 2, 1])}
    return model, batch


def test_the_registered_loss_is_found_and_equals_the_models_own(loss_example):
    model, batch = reader_and_batch(loss_example)
    loss = find_loss(model)
    check_loss(loss, model, batch)
    assert isinstance(loss, loss_example.RestoringReaderLoss)
    terms = loss(model, batch, loss.forward(model, batch))
    own = model(**batch).loss
    torch.testing.assert_close(terms.total.sum() / loss.count(batch).sum(), own, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, model.parameters()) for value in (terms.total.mean(), own))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    for row in range(5):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        torch.testing.assert_close(terms.total[row], model(**alone).loss, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="RestoringReader has no label smoothing, got `label_smoothing_factor` 0.1"):
        find_loss(model, label_smoothing=0.1)


def test_a_registered_loss_that_is_not_the_models_is_refused(loss_example, few_digits, tmp_path, monkeypatch):
    """As its page says: the first batch is compared."""
    few_digits(loss_example)
    monkeypatch.setattr(loss_example, "focal_loss", None)  # the model's own, so that only the second is at stake
    right = loss_example.RestoringReaderLoss.__call__

    def forgets_to_restore(self, model, inputs, outputs):
        terms = right(self, model, inputs, outputs)
        return type(terms)(total=terms.score, score=terms.score)

    monkeypatch.setattr(loss_example.RestoringReaderLoss, "__call__", forgets_to_restore)
    with pytest.raises(ValueError, match="differs|own loss"):
        loss_example.main([*FEW, "--output_dir", str(tmp_path), "--methods", "none", "--num_train_epochs", "1"])


# ---- Their pages ----


def defined(code: str) -> dict[str, str]:
    """Source by name of the functions, classes and constants that a module defines."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign)]
    lines = code.splitlines()
    found = {}
    for node in nodes:
        name = node.targets[0].id if isinstance(node, ast.Assign) else node.name
        start = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        found[name] = "\n".join(lines[start - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize(
    ("page", "script", "shown"),
    [
        ("writing_a_policy.md", "custom_policy.py", {"proportional", "draw", "LossProportional"}),
        ("writing_a_loss.md", "custom_loss.py", {"GAMMA", "focal_loss", "RestoringReaderLoss"}),
    ],
)
def test_the_code_of_a_page_stands_in_its_example(page, script, shown):
    source = defined((EXAMPLES / script).read_text(encoding="utf-8"))
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    on_page = defined("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)))
    assert on_page.keys() & source.keys() == shown
    for name in shown:
        assert on_page[name] == source[name], f"docs/{page} shows code that examples/{script} no longer has: {name}"
