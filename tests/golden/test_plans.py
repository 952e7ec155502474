"""Plans of every policy and choices of every selector, compared with digests that were written down once.

`plans.json` holds, for each case, N and seed, two digests per epoch (kept indices, weights) or three per batch (rows,
weights, the selector's state). A difference means that runs no longer train on the samples they did, and that old
checkpoints go on with other plans. `python -m tests.golden.test_plans` writes the file anew. That is legitimate only
where a method was changed on purpose, or a case was added; the message of the commit then says which entries changed
and why. It never is when code was only moved or made faster.

The digests are the same on every processor. Scores are small multiples of 1/64, whose sums are exact in any order;
decay rates of means that are summed are powers of 1/2; all else is single operations that IEEE 754 rounds alike. Four
places are not: the weights of `orderdp ipw` go through log and exp, those of quantiles with ties through a sum of three
products, `selective_backprop` through a power, and `auto` through exp and sums. They are computed in double precision
and then rounded to float32 (or compared with a random number), so that a last bit matters with a probability of about
1e-7 per number; the cases with ipw and of auto have at most 100 samples to keep it there. The draws are those of
numpy's `Generator`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hf_dynprune import (
    UCB,
    BatchSelector,
    ClassFloor,
    CoverEvery,
    EpochInfo,
    EpsilonGreedy,
    InfoBatch,
    NoPruning,
    OrderDP,
    OrderDPSelector,
    PruningPolicy,
    RandomPruning,
    RandomSelector,
    ScoreStore,
    SelectiveBackprop,
    StaticPruning,
    build_policy,
    get_policy,
    list_policies,
    list_selectors,
)
from hf_dynprune.decisions.proxy import GradientProxy
from hf_dynprune.methods.auto import Auto
from hf_dynprune.testing.policies import epoch_at

FILE = Path(__file__).with_name("plans.json")
EPOCHS = 6
SIZES = (1, 7, 100, 2000)
CANDIDATES = (1, 5, 32, 200)
PLAIN, TIED, GAPS = SEEDS = (11, 12, 13)
"""The seed decides what scores there are too: hardly any tied; eight values; some missing, some not finite."""

QUANTILES = {"percentiles": (20, 85), "keep_ratios": (0.25, 0.5)}


def policies(n: int) -> dict[str, PruningPolicy]:
    """The cases, for n samples."""
    labels = np.where(np.arange(n) % 5 == 4, -1, np.arange(n) % 5 % 3)
    tied = np.arange(n) * 7 % 11 / 4
    cases = {
        "none": NoPruning(),
        "random": RandomPruning(0.5),
        "random rescale": RandomPruning(0.3, rescale=True),
        "infobatch": InfoBatch(),
        "infobatch 0.7, never anneals": InfoBatch(0.7, delta=1.0),
        "infobatch flags": build_policy("infobatch", 0.4, {"delta": 0.5}),
        "infobatch paper's weights": InfoBatch(0.3, exact_weights=False),
        "infobatch bernoulli": InfoBatch(draw="bernoulli"),
        "infobatch smoothed": InfoBatch(momentum=0.5),
        "infobatch quantiles": InfoBatch(**QUANTILES),
        "infobatch quantiles, paper's weights": InfoBatch(**QUANTILES, exact_weights=False),
        "infobatch quantiles, bernoulli": InfoBatch(**QUANTILES, draw="bernoulli"),
        "orderdp": OrderDP(),
        "orderdp 0.6 x 0.5, half the run": OrderDP(0.6, 0.5, delta=0.5),
        "orderdp uniform": OrderDP(0.5, 1.0),
        "orderdp published": OrderDP(0.75, 0.7, published=True),
        "epsilon_greedy": EpsilonGreedy(0.5),
        "epsilon_greedy 0, every epoch": EpsilonGreedy(0.6, epsilon=0.0, period=1),
        "epsilon_greedy 0.5, two epochs": EpsilonGreedy(0.3, epsilon=0.5, alpha=0.5, period=2),
        "ucb": UCB(),
        "ucb every epoch": UCB(0.5, c=2.0, alpha=0.5, period=1),
        "ucb mean, three epochs": UCB(0.6, c=0.0, period=3),
        "ucb published": UCB(0.45, period=2, published=True),
        "static highest": StaticPruning(tied, 0.5),
        "static lowest": StaticPruning(tied, 0.3, keep="lowest"),
        "class floor, random": ClassFloor(RandomPruning(0.8), labels, 0.2),
        "class floor, random rescale": ClassFloor(RandomPruning(0.8, rescale=True), labels, 0.2),
        "class floor, infobatch": ClassFloor(InfoBatch(0.7), labels, 0.1),
        "class floor, orderdp": ClassFloor(OrderDP(), labels, 0.2),
        "class floor, static": ClassFloor(StaticPruning(tied, 0.7), labels, 0.2),
        "cover every, random": CoverEvery(RandomPruning(0.9), 2),
        "cover every, random rescale": CoverEvery(RandomPruning(0.9, rescale=True), 2),
        "cover every, infobatch": CoverEvery(InfoBatch(0.9), 1),
        "cover every, orderdp": CoverEvery(OrderDP(), 2),
        "cover every, ucb": CoverEvery(UCB(0.7, period=2), 3),
        "class floor, cover every, infobatch": ClassFloor(CoverEvery(InfoBatch(0.8), 2), labels, 0.1),
        "cover every, class floor, infobatch quantiles": CoverEvery(ClassFloor(InfoBatch(**QUANTILES), labels, 0.1), 2),
        "cover every, class floor, epsilon_greedy": CoverEvery(
            ClassFloor(EpsilonGreedy(0.8, period=1), labels, 0.2), 2
        ),
    }
    if n <= 100:
        cases["orderdp ipw"] = OrderDP(0.8, 0.5, weighting="ipw")
        cases["orderdp ipw, cap 3"] = OrderDP(0.9, 0.3, weighting="ipw", max_weight=3.0)
        cases["auto"] = Auto()
        cases["auto, squared error"] = Auto(floor=0.5, least=0.4)
        cases["auto, closed gate"] = Auto(gate=0.3)
        cases["class floor, cover every, auto"] = ClassFloor(CoverEvery(Auto(least=0.05), 2), labels, 0.1)
        cases["class floor, orderdp ipw"] = ClassFloor(OrderDP(weighting="ipw"), labels, 0.2)
    return cases


SELECTORS: dict[str, BatchSelector] = {
    "orderdp": OrderDPSelector(),
    "orderdp whole pool": OrderDPSelector(1.0, 0.5),
    "random": RandomSelector(),
    "random 0.9": RandomSelector(0.9),
    "selective_backprop": SelectiveBackprop(),
    "selective_backprop 1, last 20": SelectiveBackprop(beta=1.0, history=20),
}


def digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def scores(size: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 8 if seed == TIED else 2**12, size) / 64


def record(store: ScoreStore, kept: np.ndarray, seed: int, epoch: int) -> None:
    """An epoch's scores, in two batches; with gaps one sample in six has none and one in ten no finite one."""
    rng = np.random.default_rng([seed, epoch, store.num_samples])
    score = scores(store.num_samples, seed, rng)[kept]
    if seed == GAPS:
        lot = rng.integers(0, 30, store.num_samples)[kept]
        score = np.where(lot < 2, np.nan, np.where(lot == 2, np.inf, score))
        kept, score = kept[lot < 25], score[lot < 25]
    # The first sample comes twice, as where a last batch is filled up.
    order = np.append(rng.permutation(len(kept)), np.arange(min(1, len(kept))))
    for part in np.array_split(order, 2):
        store.record(kept[part], score[part], epoch)
    store.end_epoch(epoch)


def plans(policy: PruningPolicy, n: int, seed: int, kind: str = "cross_entropy") -> Iterator[str]:
    """Digests of a run's plans, one text per epoch; the run's figures speak for choosing samples."""
    store = ScoreStore(n, policy.statistics)
    for epoch in range(EPOCHS):
        info = EpochInfo(epoch, EPOCHS, epoch / EPOCHS, seed, epoch_at(epoch).past, GradientProxy(kind))
        plan = policy.plan(store.view(), info, info.generator("plan", policy.period_start(epoch)))
        yield f"{digest(plan.kept_indices.astype(np.int64))} {digest(plan.weights.astype(np.float32))}"
        record(store, plan.kept_indices, seed, epoch)


def choices(selector: BatchSelector, size: int, seed: int) -> Iterator[str]:
    """Digests of what a selector chooses of successive batches, one text per batch."""
    state = selector.start()
    for batch in range(EPOCHS):
        losses = scores(size, seed, np.random.default_rng([seed, batch, size])).astype(np.float32)
        state = selector.observe(losses, state)
        rows, weights = selector.select(losses, state, np.random.default_rng([seed, batch]))
        kept = [part for name in sorted(state) for part in (np.frombuffer(name.encode(), np.uint8), state[name])]
        yield f"{digest(rows.astype(np.int64))} {digest(weights.astype(np.float32))} {digest(*kept)}"


def everything() -> dict[str, list[str]]:
    found = {}
    for seed in SEEDS:
        for n in SIZES:
            for name, policy in policies(n).items():
                kind = "squared_error" if "squared error" in name else "cross_entropy"
                found[f"policy {name}; N {n}, seed {seed}"] = list(plans(policy, n, seed, kind))
        for size in CANDIDATES:
            for name, selector in SELECTORS.items():
                found[f"selector {name}; N {size}, seed {seed}"] = list(choices(selector, size, seed))
    return dict(sorted(found.items()))


def test_plans_and_choices_are_those_written_down():
    expected, found = json.loads(FILE.read_text(encoding="utf-8")), everything()
    assert found.keys() == expected.keys(), f"cases that only one side has: {sorted(found.keys() ^ expected.keys())}"
    different = [
        f"{case}, {'epochs' if case.startswith('policy') else 'batches'} "
        + " ".join(str(at) for at in range(EPOCHS) if found[case][at] != expected[case][at])
        for case in expected
        if found[case] != expected[case]
    ]
    assert not different, f"{len(different)} of {len(expected)} cases differ:\n" + "\n".join(different)


def test_every_policy_of_the_package_has_a_case():
    bases = list(policies(7).values())
    covered = set()
    while bases:
        policy = bases.pop()
        covered.add(type(policy))
        bases += [policy.base] if hasattr(policy, "base") else []
    own = {get_policy(name) for name in list_policies() if get_policy(name).__module__.startswith("hf_dynprune.")}
    assert own | {ClassFloor, CoverEvery} == covered


def test_every_selector_of_the_package_has_a_case():
    own = {kind for kind in BatchSelector.__subclasses__() if kind.__module__.startswith("hf_dynprune.")}
    assert own == {type(selector) for selector in SELECTORS.values()}
    assert {kind.name for kind in own} <= set(list_selectors())


if __name__ == "__main__":
    rows = (f"{json.dumps(case)}: {json.dumps(texts)}" for case, texts in everything().items())
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
