"""A policy, a selector and a loss of one file each pass the checks of `hf_dynprune.testing`; broken ones do not.

    python check_plug_ins.py [--installed]

Runs with whatever `hf_dynprune` its Python finds, an installed wheel or the source; needs no pytest. With `--installed`
it must be installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# The toys are found in the script's own folder, which Python looks in first.
import torch
import toy_loss
import toy_policy
import toy_selector

import hf_dynprune
from hf_dynprune import DynPruneTrainingArguments, build_policy, build_selector, list_policies, list_selectors
from hf_dynprune.losses import find_loss
from hf_dynprune.testing import check_loss, check_policy, check_selector


def refused(check, cases):
    """Prints how many were refused with the message expected; raises if one was not."""
    for thing, message in cases.items():
        name = thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)
        try:
            check(thing)
        except AssertionError as error:
            found = str(error)
        else:
            raise SystemExit(f"{name} passed, though it is broken: {message}")
        if not re.search(message, found):
            raise SystemExit(f"{name} was refused with another message than {message!r}: {found}")
    print(f"{len(cases)} broken ones refused, by name of what is wrong")


def main(arguments):
    where = Path(hf_dynprune.__file__).resolve()
    if "--installed" in arguments and "site-packages" not in where.parts:
        raise SystemExit(f"hf_dynprune is the source {where}, not an installed wheel: use the wheel's own Python.")
    # Registered by being imported, and then known by name like the package's own.
    assert "toy_policy" in list_policies()
    assert build_policy("toy_policy", 0.5) == toy_policy.ToyPolicy(0.5)
    assert "toy_selector" in list_selectors()
    assert build_selector("toy_selector", {"chance": 0.1}) == toy_selector.ToySelector(chance=0.1)
    args = DynPruneTrainingArguments("out", prune_method="toy_policy", prune_ratio=0.5, report_to="none")
    assert args.build_policy() == toy_policy.ToyPolicy(0.5)
    torch.manual_seed(0)
    model = toy_loss.ToyTagger()
    assert isinstance(find_loss(model), toy_loss.ToyLoss)

    for ratio in (0.0, 0.25, 0.9):
        check_policy(toy_policy.ToyPolicy(ratio))
    check_policy(toy_policy.ToyPolicy(), num_samples=30, seed=1)
    for policy in (toy_policy.Simulated(0.5), toy_policy.Simulated(0.9), toy_policy.SimulatedCoins(0.5)):
        check_policy(policy)
    check_selector(toy_selector.StateFromTheFirstBatch())
    for largest, chance in ((0.25, 0.5), (0.0, 0.9), (1.0, 1.0)):
        check_selector(toy_selector.ToySelector(largest, chance))
    check_loss(toy_loss.ToyLoss(), model, toy_loss.batch())
    check_loss(toy_loss.squared, model, toy_loss.batch())
    assert model.training, "the model's mode is as it was"
    print("a policy, a selector, a loss and a function passed")

    refused(check_policy, toy_policy.BROKEN)
    refused(check_selector, toy_selector.BROKEN)
    refused(lambda loss: check_loss(loss, model, toy_loss.batch()), toy_loss.BROKEN)
    refused(lambda name: check_loss(toy_loss.ToyLoss(), model, toy_loss.BAD_BATCHES[name][0]), toy_loss.BAD_MESSAGES)
    print(f"hf_dynprune {hf_dynprune.__version__} of {where.parent}")


if __name__ == "__main__":
    main(sys.argv[1:])
