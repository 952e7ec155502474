"""Damage to every file of a checkpoint: an error that names it, a checkpoint passed over, or harmless to the bit.

A few in the default suite; `make soak` makes the five hundred that the documentation states and prints their table.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from hf_dynprune import InfoBatch, NoPruning, RandomSelector
from hf_dynprune.records.state_files import CheckpointError
from tests.support.helpers import Images, assert_same_bits, pruning_trainer, vit, weights_of

SEED = 21
FILES = [
    "config.json",
    "dynprune_digests.json",
    "dynprune_state.json",
    "dynprune_state.safetensors",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
]
KINDS = {
    "policy": lambda: {"policy": InfoBatch(ratio=0.7, delta=0.8)},
    "selector": lambda: {"selector": RandomSelector(0.5)},
    "none": lambda: {"policy": NoPruning()},
}


# ---- Mutations: each changes one file of the newest checkpoint; `older` is the same file of the one before ----


def flip_a_bit(file: Path, older: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def flip_a_byte(file: Path, older: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 0xFF
    file.write_bytes(content)


def zero_a_block(file: Path, older: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    start = draw.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    file.write_bytes(content)


def truncate(file: Path, older: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(1, file.stat().st_size))


def append(file: Path, older: Path, draw: random.Random) -> None:
    with open(file, "ab") as opened:
        opened.write(draw.randbytes(draw.randrange(1, 64)))


def empty(file: Path, older: Path, draw: random.Random) -> None:
    os.truncate(file, 0)


def delete(file: Path, older: Path, draw: random.Random) -> None:
    file.unlink()


def swap(file: Path, older: Path, draw: random.Random) -> None:
    kept = file.with_name("kept")
    os.replace(file, kept)
    os.replace(older, file)
    os.replace(kept, older)


def double(file: Path, older: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes() * 2)


def zero_all(file: Path, older: Path, draw: random.Random) -> None:
    """As a power failure leaves a file whose length was written and whose content was not."""
    file.write_bytes(bytes(file.stat().st_size))


RANDOM = [flip_a_bit, flip_a_byte, zero_a_block, truncate, append]
FIXED = [empty, delete, swap, double, zero_all]


def build(kind, folder, **flags):
    flags = {"max_steps": 4, "logging_strategy": "no", **flags}
    return pruning_trainer(vit(dropout=0.2), Images(12), folder, **KINDS[kind](), **flags)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By kind of run: (folder with the checkpoints of steps 1 to 3, weights after step 4)."""
    made = {}
    gc.freeze()  # the Trainer collects garbage in each `train`, which would look at all libraries' objects again

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "run"
            trainer = build(kind, folder, save_strategy="steps", save_steps=1)
            trainer.train()
            shutil.rmtree(folder / "checkpoint-4")
            assert sorted(file.name for file in (folder / "checkpoint-3").iterdir()) == FILES
            made[kind] = folder, weights_of(trainer)
        return made[kind]

    yield get
    gc.unfreeze()


def resume(trainer, wanted) -> str:
    """The message of the one kind of error that damage may end in; empty where the run was resumed."""
    try:
        trainer.train(resume_from_checkpoint=wanted)
    except CheckpointError as error:
        return str(error)
    return ""


def outcomes(kind, name, mutate, seed, runs, place, caplog):
    """What comes of one mutation, for the folder given by name and for `resume_from_checkpoint=True`."""
    source, weights = runs(kind)
    folder, trainer = place / "run", None
    shutil.copytree(source, folder)
    newest, older = folder / "checkpoint-3", folder / "checkpoint-2"
    was = (newest / name).read_bytes()
    mutate(newest / name, older / name, random.Random(f"{SEED} {kind} {name} {mutate.__name__} {seed}"))
    is_same = (newest / name).is_file() and (newest / name).read_bytes() == was  # such as two equal files swapped
    stem = name.split(".")[0]  # of our pair of files either may be named
    for wanted in (str(newest), True):
        caplog.clear()
        trainer = trainer or build(kind, folder)
        error, said = resume(trainer, wanted), caplog.messages
        if error:
            assert wanted is not True
            assert mutate is swap or f"The newest usable one in {folder} is {older}" in error
            came = "error"
        else:
            assert_same_bits(weights_of(trainer), weights)
            trainer = None
            came = "passed over" if any("Passing over" in message for message in said) else "harmless"
        assert is_same or any(stem in message for message in [error, *said]), f"{name}: nothing was said"
        yield "newest" if wanted is True else "by name", came
    shutil.rmtree(folder)


def mutations(seeds):
    for name in FILES:
        yield from ((name, mutate, seed) for mutate in RANDOM for seed in range(seeds))
        yield from ((name, mutate, 0) for mutate in FIXED)


FEW = [("policy", name, RANDOM[number % 5]) for number, name in enumerate(FILES)]
FEW += [("policy", name, FIXED[number % 5]) for number, name in enumerate(FILES)]
FEW += [(kind, name, flip_a_bit) for kind in ("selector", "none") for name in ("model.safetensors", "optimizer.pt")]
FEW += [("none", "dynprune_state.json", truncate), ("none", "trainer_state.json", delete)]


@pytest.mark.parametrize(("kind", "name", "mutate"), FEW)
def test_no_mutation_is_silent(kind, name, mutate, runs, tmp_path, caplog):
    assert len(list(outcomes(kind, name, mutate, 0, runs, tmp_path, caplog))) == 2


@pytest.mark.slow
def test_none_of_five_hundred_is_silent(runs, tmp_path, caplog, capsys):
    table, number = {}, 0
    for kind, seeds in (("policy", 3), ("selector", 2), ("none", 2)):
        for name, mutate, seed in mutations(seeds):
            number += 1
            came = " / ".join(each for _, each in outcomes(kind, name, mutate, seed, runs, tmp_path, caplog))
            table.setdefault((kind, name), {}).setdefault(mutate, Counter())[came] += 1
    assert number == 500
    with capsys.disabled():
        print(f"\n{number} mutations (seed {SEED}); what comes of the folder given by name / of the newest:")
        columns = [mutate.__name__.replace("_", " ") for mutate in RANDOM + FIXED]
        print("| run | file | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 2) + "|")
        for (kind, name), row in table.items():
            cells = [", ".join(f"{count} {came}" for came, count in row[each].items()) for each in RANDOM + FIXED]
            print(f"| {kind} | `{name}` | " + " | ".join(cells) + " |")
