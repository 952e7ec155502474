"""Reductions kept apart by sample: what each sample alone gives, its part in the batch, and weights in the number."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hf_dynprune.losses.by_sample import BySample
from hf_dynprune.losses.interception import InterceptedLoss

B, C, T = 4, 3, 5
generator = torch.Generator().manual_seed(0)
Z, Y = torch.randn(B, C, generator=generator), torch.tensor([0, 2, 1, 2])
SOFT = torch.rand(B, C, generator=generator).softmax(1)
TOKENS, WORDS = torch.randn(B, T, C, generator=generator), torch.randint(0, C, (B, T), generator=generator)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 1, 0]]).bool()
CLASS_WEIGHTS = torch.tensor([1.0, 3.0, 0.5])


def focal(z, y):
    each = functional.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def masked(z, y, mask):
    each = functional.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none").view(mask.shape)
    return (each * mask).sum() / mask.sum()


def flat(z, y, mask):
    each = functional.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none")
    return (each * mask.flatten()).sum() / mask.flatten().float().sum()


def selected(z, y, mask):
    return functional.cross_entropy(z[mask], y[mask])


def selected_by_hand(z, y, mask):
    each = -z.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return each[mask].mean()


def by_place(z, y):
    """Channels second, as in segmentation."""
    return functional.cross_entropy(z.transpose(1, 2), y)


def summed(z, y):
    total = 0
    total += functional.cross_entropy(z, y)
    total = total + 0.5 * (z**2).mean()
    total *= 2
    return total / 3 - functional.l1_loss(z, functional.one_hot(y, C).float()) * 0.1


def stacked(z, y):
    return (torch.stack([functional.cross_entropy(z, y), z.abs().mean()]) * torch.tensor([0.7, 0.3])).sum()


def evidence(z, y):
    mean, log_variance = z[:, :1], z[:, 1:2]
    divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp(), dim=1)
    return functional.binary_cross_entropy_with_logits(z, functional.one_hot(y, C).float(), reduction="sum") / len(
        z
    ) + torch.mean(divergence, dim=0)


CODE = {
    "focal": (focal, Z, Y),
    "class weights": (lambda z, y: nn.CrossEntropyLoss(weight=CLASS_WEIGHTS)(z, y), Z, Y),
    "positive weights": (lambda z, y: nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS)(z, y), Z, SOFT.round()),
    "soft labels": (lambda z, y: functional.cross_entropy(z, y), Z, SOFT),
    "divergence, batchmean": (lambda z, y: functional.kl_div(z.log_softmax(1), y, reduction="batchmean"), Z, SOFT),
    "divergence, mean": (lambda z, y: nn.KLDivLoss()(z.log_softmax(1), y), Z, SOFT),
    "triplets": (lambda z, y: functional.triplet_margin_loss(z, z.roll(1, 1), y), Z, SOFT),
    "cosine": (lambda z, y: functional.cosine_embedding_loss(z, y, torch.ones(len(z))), Z, SOFT),
    "Gaussian": (lambda z, y: functional.gaussian_nll_loss(z, y, torch.ones_like(z)), Z, SOFT),
    "Poisson": (lambda z, y: functional.poisson_nll_loss(z, y), Z, SOFT),
    "soft margin of several labels": (lambda z, y: functional.multilabel_soft_margin_loss(z, y), Z, SOFT.round()),
    "margin of several classes": (lambda z, y: functional.multi_margin_loss(z, y), Z, Y),
    "hinge": (lambda z, y: functional.hinge_embedding_loss(z, 2 * y.round() - 1), Z, SOFT),
    "squares by hand": (lambda z, y: ((z - y) ** 2).mean(), Z, SOFT),
    "sum of squares by the batch's size": (lambda z, y: ((z - y) ** 2).sum() / z.shape[0], Z, SOFT),
    "sum of squares by the number of entries": (lambda z, y: torch.sum((z - y) ** 2) / z.numel(), Z, SOFT),
    "mean of sums": (lambda z, y: ((z - y) ** 2).sum(1).mean(), Z, SOFT),
    "mean over the first dimension": (lambda z, y: ((z - y) ** 2).sum(dim=-1).mean(dim=0), Z, SOFT),
    "several terms": (summed, Z, Y),
    "terms in a row": (stacked, Z, Y),
    "evidence lower bound": (evidence, Z, Y),
    "masked tokens": (masked, TOKENS, WORDS, MASK),
    "masked tokens in one row": (flat, TOKENS, WORDS, MASK),
    "selected tokens": (selected, TOKENS, WORDS, MASK),
    "selected tokens, by hand": (selected_by_hand, TOKENS, WORDS, MASK),
    "classes second": (by_place, TOKENS, WORDS),
}


def run(code, *tensors, weights=None):
    mode = BySample(B, {B, *(each.numel() for each in tensors)}, weights)
    with mode:
        value = code(*tensors)
    return value, mode.of(value).carried


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", CODE)
def test_numbers_carry_what_they_are_for_each_sample(name):
    code, z, *rest = CODE[name]
    z = z.clone().requires_grad_()
    value, carried = run(code, z, *rest)
    assert torch.equal(value, code(z, *rest)), "without weights it is torch's own number"
    torch.testing.assert_close(carried[0].mean(), value, rtol=1e-5, atol=1e-6)
    for i in range(B):
        alone = code(z[i : i + 1], *(each[i : i + 1] for each in rest))
        torch.testing.assert_close(carried[1][i], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", CODE)
def test_weights_are_in_the_number_and_in_its_gradient(name):
    code, z, *rest = CODE[name]
    z = z.clone().requires_grad_()
    _, carried = run(code, z, *rest)
    weights = torch.tensor([2.0, 0.5, 1.0, 3.0])
    value, _ = run(code, z, *rest, weights=weights)
    expected = (weights * carried[0]).mean()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    gradient = torch.autograd.grad(expected, z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(value, z)[0], gradient, rtol=1e-5, atol=1e-6)


def test_a_sample_of_weight_0_does_not_count_in_a_mean():
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0])
    value, _ = run(lambda z, y: functional.cross_entropy(z, y), Z.clone().requires_grad_(), Y, weights=weights)
    kept = weights > 0
    torch.testing.assert_close(value, functional.cross_entropy(Z[kept], Y[kept]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_left_out(bad):
    z = Z.clone()
    z[1, 0] = bad
    value, carried = run(lambda z, y: ((z - y) ** 2).mean(1).mean(), z.requires_grad_(), SOFT, weights=torch.ones(B))
    rest = [0, 2, 3]
    torch.testing.assert_close(value, ((Z - SOFT) ** 2).mean(1)[rest].sum() / B)
    assert not torch.isfinite(carried[1][1])


def test_penalties_belong_to_no_sample():
    """Also where a parameter has as many rows as there are samples."""
    layer = nn.Linear(C, B)
    old = [each.detach().clone() for each in layer.parameters()]

    def code(z, y):
        penalty = sum((each**2).sum() for each in layer.parameters())
        proximal = sum(((each - before) ** 2).sum() for each, before in zip(layer.parameters(), old, strict=True))
        return functional.cross_entropy(layer(z), y) + 0.1 * penalty + proximal

    value, carried = run(code, Z, Y)
    alone = code(Z[:1], Y[:1])
    torch.testing.assert_close(carried[1][0], alone)
    weighted, _ = run(code, Z, Y, weights=torch.full((B,), 2.0))
    torch.testing.assert_close(weighted - value, functional.cross_entropy(layer(Z), Y))


def test_a_tensor_that_happens_to_have_as_many_rows_is_not_the_samples():
    """Texts of one batch have another length; in the next one a text has as many letters as there are samples."""

    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.letters, self.head = nn.Embedding(128, 1), nn.Linear(1, C)

        def forward(self, texts, labels):
            each = torch.stack([self.letters(torch.tensor([*text.encode()])).mean() for text in texts])
            logits = self.head(each.unsqueeze(1))
            return {"loss": functional.cross_entropy(logits, labels)}

    torch.manual_seed(0)
    model = Texts()
    loss = InterceptedLoss(model)
    first = {"texts": ["abc", "abcde", "ab", "abcdefg"], "labels": Y}
    with torch.no_grad():
        loss.verify(model, first, loss(model, first, loss.forward(model, first)), 1e-4)
    second = {"texts": ["abcd", "abc", "abcdefgh", "ab"], "labels": Y}
    found = loss.apart(lambda: loss.compute(model, second, None), second, B, weights=torch.full((B,), 2.0))
    torch.testing.assert_close(found.value, 2 * model(**second)["loss"])
    alone = model(texts=second["texts"][:1], labels=Y[:1])["loss"]
    torch.testing.assert_close(found.carried[1][0], alone)


def test_a_number_that_happens_to_be_that_of_the_samples_is_a_factor():
    model = nn.Linear(C, C)

    def compute(model, inputs, number):
        return 2 * functional.cross_entropy(model(inputs["x"]), inputs["labels"])

    loss = InterceptedLoss(model, compute=compute)
    for rows in (4, 2, 2):
        batch = {"x": Z[:rows], "labels": Y[:rows]}
        terms = loss(model, batch, loss.forward(model, batch))
        if not loss.is_verified:
            loss.verify(model, batch, terms, 1e-4)
        expected = 2 * functional.cross_entropy(model(batch["x"]), batch["labels"], reduction="none")
        torch.testing.assert_close(terms.score, expected.detach())
    first_of_two = InterceptedLoss(model, compute=compute)
    batch = {"x": Z[:2], "labels": Y[:2]}
    first_of_two.verify(model, batch, first_of_two(model, batch, first_of_two.forward(model, batch)), 1e-4)
    assert first_of_two(model, batch, first_of_two.forward(model, batch)).score[0] == pytest.approx(
        float(2 * functional.cross_entropy(model(Z[:1]), Y[:1]).detach()), rel=1e-5
    )


def test_noise_is_named_and_no_reason_to_refuse(caplog):
    model = nn.Linear(C, C)

    def compute(model, inputs, number):
        return functional.cross_entropy(model(inputs["x"]) + torch.randn(len(inputs["x"]), C), inputs["labels"])

    loss, batch = InterceptedLoss(model, compute=compute), {"x": Z, "labels": Y}
    with caplog.at_level("WARNING", logger="hf_dynprune"):
        loss.verify(model, batch, loss(model, batch, loss.forward(model, batch)), 1e-4)
    assert "draws random numbers in evaluation mode too: two equal calls give" in caplog.text
    assert loss.is_verified


@pytest.mark.parametrize("draw", [torch.rand, np.random.beta, random.betavariate], ids=["torch", "numpy", "python"])
def test_noise_is_named_where_the_samples_that_are_compared_happen_to_have_none(draw, caplog):
    arguments = (1,) if draw is torch.rand else (2.0, 2.0)
    model, inner = nn.Linear(C, C), torch.arange(B).remainder(B - 1) > 0

    def compute(model, inputs, number):
        scale = 1 + float(draw(*arguments)) * (inner[: len(inputs["x"])] if len(inputs["x"]) > 1 else 0)
        losses = functional.cross_entropy(model(inputs["x"]), inputs["labels"], reduction="none")
        return (losses * scale).mean()

    loss, batch = InterceptedLoss(model, compute=compute), {"x": Z, "labels": Y}
    with caplog.at_level("WARNING", logger="hf_dynprune"):
        loss.verify(model, batch, loss(model, batch, loss.forward(model, batch)), 1e-4)
    assert "draws random numbers in evaluation mode too: two equal calls give" in caplog.text
    assert loss.is_verified


def test_samples_that_are_compared_are_refused_where_all_losses_are_alike():
    """A model that still is its reference has the same loss for each pair, however the pairs are put together."""
    model, reference = nn.Linear(C, 1), nn.Linear(C, 1)
    reference.load_state_dict(model.state_dict())

    def ranked(model, inputs, number):
        ours, theirs = (net(inputs["x"]).squeeze(1).sort().values for net in (model, reference))
        return -functional.logsigmoid(ours - theirs.detach()).mean()

    def each(model, inputs, number):
        return -functional.logsigmoid(model(inputs["x"]) - reference(inputs["x"]).detach()).mean()

    def next_to_each_other(model, inputs, number):
        ours = model(inputs["x"]) - reference(inputs["x"]).detach()
        return -functional.logsigmoid(ours - ours.roll(1, 0)).mean()

    order = reference(Z).squeeze(1).argsort(descending=True)
    batch = {"x": Z[order], "labels": Y[order]}
    for compute in (ranked, next_to_each_other):
        loss = InterceptedLoss(model, compute=compute)
        with torch.no_grad():
            terms = loss(model, batch, loss.forward(model, batch))
            with pytest.raises(ValueError, match="another gradient in its batch than alone: samples are compared"):
                loss.verify(model, batch, terms, 1e-4)
    loss = InterceptedLoss(model, compute=each)
    with torch.no_grad():
        loss.verify(model, batch, loss(model, batch, loss.forward(model, batch)), 1e-4)
    assert loss.is_verified
    assert all(each.grad is None for each in model.parameters())
