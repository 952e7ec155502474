"""Checkpoints that are missing, half-written, changed or foreign, and runs that are not the one that was saved."""

from __future__ import annotations

import json
import shutil

from hf_dynprune import InfoBatch, OrderDP
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.records.state_files import (
    FORMAT_VERSION,
    JSON_FILE,
    TENSOR_FILE,
    CheckpointError,
    load_state,
    save_state,
)
from tests.bad_input import Case, build
from tests.support.helpers import Images, bert, vit

SAVED = {"policy": InfoBatch(ratio=0.7, delta=0.8), "max_steps": 5, "save_strategy": "steps", "save_steps": 4}
"""The run that is saved: its `checkpoint-4` lies inside the first epoch, which has 6 steps."""
NAME = "checkpoint-4"


def resumed(message, damage=None, error=CheckpointError, resume=None, **flags):
    """The saved run, taken up with other flags from a damaged copy of its checkpoint."""

    def act(place):
        if damage is not None:
            damage(place / "run" / NAME)
        return build(place, **{**SAVED, **flags})

    return Case(act, message, error, 0, resume or (lambda place: str(place / "run" / NAME)))


def unusable(reason, damage):
    """The folder is named, the reason, and what to do where no other checkpoint is there."""
    message = f"No usable checkpoint. .*{NAME}: .*{reason}.*. None in .*run or .*run is usable either"
    return resumed(message, damage)


def lacks(name, reason="{} is missing"):
    return unusable(reason.format(name), lambda folder: (folder / name).unlink())


def cut_off(name, reason="{} is cut off or damaged"):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return unusable(reason.format(name), damage)


def written(change):
    """The pruning state after `change(content of its JSON file)`."""

    def damage(folder):
        content = json.loads((folder / JSON_FILE).read_text())
        change(content)
        (folder / JSON_FILE).write_text(json.dumps(content))

    return damage


def saved_again(**changes):
    """Other facts with the right checksums, as another run would have written them."""

    def damage(folder):
        arrays, facts = load_state(folder)
        facts = {key: value for key, value in (facts | changes).items() if value is not None}
        save_state(folder, arrays, facts)
        (folder / DIGEST_FILE).unlink()

    return damage


def flip_a_bit(folder):
    content = bytearray((folder / TENSOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / TENSOR_FILE).write_bytes(content)


def add_empty_folder(folder):
    (folder.parent / "checkpoint-9").mkdir()


def version(number):
    return written(lambda content: content.update(format_version=number))


EXACTLY = "written by another trainer or with `save_only_model`, so its run cannot be resumed exactly. Resume it with"
UNFINISHED = "trainer_state.json is missing, so the checkpoint was not written to its end"

CHECKPOINTS = {
    # Nowhere
    "no such folder": resumed(
        "No usable checkpoint. .*checkpoint-7: there is no such folder. The newest usable one in .*run is .*point-4",
        resume=lambda place: str(place / "run" / "checkpoint-7"),
    ),
    "the run's folder for a checkpoint": resumed(
        f"run: {UNFINISHED}. The newest usable one in .*run is .*run/checkpoint-4",
        resume=lambda place: str(place / "run"),
    ),
    "the text 'True' for the value": resumed(
        "True: there is no such folder. For the newest checkpoint of the run pass the value True, not the text 'True'",
        resume=lambda place: "True",
    ),
    "a folder elsewhere": resumed(
        "/nowhere/checkpoint-4: there is no such folder. The newest usable one in .*run is .*run/checkpoint-4",
        resume=lambda place: "/nowhere/checkpoint-4",
    ),
    "nothing to resume": resumed(
        "There is no checkpoint in .*run to resume from. Start without `resume_from_checkpoint`",
        shutil.rmtree,
        resume=lambda place: True,
    ),
    "only unfinished ones to resume": resumed(
        f"checkpoint-9: {UNFINISHED}. .*checkpoint-4: optimizer.pt is missing. Start a new run",
        lambda folder: (add_empty_folder(folder), (folder / "optimizer.pt").unlink()),
        resume=lambda place: True,
    ),
    "unfinished beside a whole one": resumed(
        f"checkpoint-9: {UNFINISHED}. The newest usable one in .*run is .*checkpoint-4",
        add_empty_folder,
        resume=lambda place: str(place / "run" / "checkpoint-9"),
    ),
    # Written halfway
    "without trainer state": lacks("trainer_state.json", UNFINISHED),
    "without weights": lacks("model.safetensors", "model.safetensors is missing, and so are weights in any other form"),
    "without optimizer": lacks("optimizer.pt"),
    "without scheduler": lacks("scheduler.pt"),
    "without random states": lacks("rng_state.pth"),
    "without pruning facts": lacks(JSON_FILE, f"has no {{}}: it was {EXACTLY}"),
    "without pruning tensors": lacks(TENSOR_FILE, f"has no {{}}: it was {EXACTLY}"),
    "trainer state cut off": cut_off("trainer_state.json", r"{} cannot be read \(JSONDecodeError"),
    "weights cut off": cut_off("model.safetensors"),
    "optimizer cut off": cut_off("optimizer.pt"),
    "scheduler cut off": cut_off("scheduler.pt"),
    "random states cut off": cut_off("rng_state.pth"),
    "pruning facts cut off": cut_off(JSON_FILE, r"{} is damaged \(JSONDecodeError.* Resume from an earlier checkpoint"),
    "pruning tensors cut off": cut_off(
        TENSOR_FILE, "{} is damaged: its SHA-256 is not [0-9a-f]{{64}}. Resume from an earlier checkpoint"
    ),
    # Changed, or of another origin
    "older format": unusable(
        f"has format version {FORMAT_VERSION - 1}, this version reads {FORMAT_VERSION}. Resume with the hf_dynprune "
        "version that wrote it",
        version(FORMAT_VERSION - 1),
    ),
    "newer format": unusable(
        f"has format version {FORMAT_VERSION + 1}, this version reads {FORMAT_VERSION}. Resume with the hf_dynprune "
        "version that wrote it",
        version(FORMAT_VERSION + 1),
    ),
    "without a format": unusable(
        r"is damaged \(`format_version` is missing\). Resume from an earlier checkpoint",
        written(lambda content: content.pop("format_version")),
    ),
    "seed edited": unusable(
        f"{JSON_FILE} was changed after it was written: the SHA-256 of its facts is not [0-9a-f]{{64}}. Resume from an",
        written(lambda content: content["facts"]["run"].update(seed=12)),
    ),
    "scores edited": unusable(
        f"{TENSOR_FILE} is damaged: its SHA-256 is not [0-9a-f]{{64}}. Resume from an", flip_a_bit
    ),
    "state of another step": unusable(
        f"{JSON_FILE} is of step 3, trainer_state.json of step 4", saved_again(global_step=3)
    ),
    "state without an entry": resumed(
        "The checkpoint's pruning state lacks clock. Resume from another one", saved_again(clock=None)
    ),
    "inside an epoch, out of order": resumed(
        "checkpoint-4 lies inside an epoch and was written with `dataloader_in_order=False`: .* Resume from the end of "
        "an epoch, or pass `ignore_data_skip=True`",
        saved_again(in_order=False),
    ),
}


def differs(difference, **flags):
    """The checkpoint is whole, the run another: named is what it was, what it is now, and what to do."""
    return resumed(
        f"belongs to another run, so it cannot be resumed exactly. {difference}. Use the saved run's settings, or "
        "start a new run from its weights",
        **flags,
    )


FINGERPRINT = "fingerprint of the data set .its length, columns and labels.: '[0-9a-f]{16}' then, '[0-9a-f]{16}' now"

RESUMES = {
    "method": differs("pruning method: 'infobatch' then, 'orderdp' now; parameters: .*", policy=OrderDP()),
    "parameters": differs(
        "parameters: {'ratio': 0.7.* then, {'ratio': 0.6.* now", policy=InfoBatch(ratio=0.6, delta=0.8)
    ),
    "class floor": differs(
        r"pruning method: 'infobatch' then, 'infobatch\+class_floor' now; parameters: .* now", prune_class_floor=0.2
    ),
    "longest time unseen": differs(
        r"pruning method: 'infobatch' then, 'infobatch\+cover_every' now; .*'max_unseen_epochs': 3} now",
        prune_max_unseen_epochs=3,
    ),
    "pruning seed": differs("pruning seed: 11 then, 99 now", prune_seed=99),
    "seed": differs("pruning seed: 11 then, 12 now; `data_seed` or `seed`: 11 then, 12 now", seed=12),
    "warm-up": differs("prune_warmup_epochs: 0 then, 1 now", prune_warmup_epochs=1),
    "last batch": differs("dataloader_drop_last: False then, True now", dataloader_drop_last=True),
    "sampling": differs(
        "train_sampling_strategy: 'random' then, 'sequential' now", train_sampling_strategy="sequential"
    ),
    "length of the data": differs(f"num_samples: 22 then, 20 now; {FINGERPRINT}", dataset=Images(20)),
    "content of the data": differs(FINGERPRINT, dataset=Images(seed=1)),
    "augmentation": differs(
        "prune_reproducible_augmentation: False then, True now", prune_reproducible_augmentation=True
    ),
    "model of another depth": resumed(
        r"The weights in .*checkpoint-4 do not fit ViTForImageClassification: missing \['vit\.\S*layers\.2\..* Build "
        "the model as it was when the checkpoint was saved",
        error=RuntimeError,
        model=lambda: vit(num_hidden_layers=3),
    ),
    "model of another kind": resumed(
        r"The weights in .*checkpoint-4 do not fit BertForSequenceClassification: missing \['bert\.",
        error=RuntimeError,
        model=bert,
    ),
    "model with other classes": resumed(
        r"size mismatch for classifier\.weight: .*\[3, 16\]\) from checkpoint, .*current model is .*\[5, 16\]\)",
        error=RuntimeError,
        model=lambda: vit(num_labels=5),
    ),
}
