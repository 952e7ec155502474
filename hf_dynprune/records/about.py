"""What was run, in `dynprune_run.json`: written into the output folder when training begins, for cards and reports."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ..common.files import write_atomically
from ..common.reading import read_json
from ..common.schema import Between, Count
from ..common.secrets import without_secrets
from .data_source import DataSource
from .record import RUN_FILE


@dataclass(frozen=True)
class AboutRun:
    """One run, as others would have to repeat it. Of paths it holds the last part only.

    Args:
        method: name of the policy, or of the selector.
        parameters: of the policy or selector.
        selector: its name, where one chooses inside the batches; None with a policy.
        class_name: of policy or selector.
        rule: what it keeps, in one sentence.
        unbiased: whether its weights make up for what is left out; not where kept samples are mixed with each other.
        prunes: False where it never leaves anything out.
        reference: the paper.
        expression: policy or selector as Python makes it, where the trainer was given an object; else None.
        flags: the pruning flags that differ from their defaults.
        seed: of the pruning draws.
        num_epochs: length of the run, as it was asked for; None where the number of steps is fixed.
        num_samples: N; None for a stream.
        model: `class`, and `name_or_path` of its configuration where it has one.
        versions: of this package, torch, transformers and accelerate.
        mixes: whether training batches were mixed (mixup, cutmix); not in the file where they were not.
        class_names: by class number, of the training set or else of the model; not in the file where neither has any.
        data: how the training set was read, where one of the package's readers read it; else not in the file.
        own_loss: the user's code that makes the loss, such as "`compute_loss` of MyTrainer"; None without any. Files of
            older versions do not have it.
    """

    method: str
    parameters: dict[str, Any]
    selector: str | None
    class_name: str
    rule: str
    unbiased: bool
    prunes: bool
    reference: str
    flags: dict[str, Any]
    seed: int
    num_epochs: Annotated[float, Between(0, 2**53)] | None
    num_samples: Count | None
    model: dict[str, str]
    versions: dict[str, str]
    expression: str | None = None
    mixes: bool = False
    class_names: list[str] | None = None
    data: DataSource | None = None
    own_loss: str | None = None

    @classmethod
    def load(cls, folder: str | Path) -> AboutRun:
        """Read the file from an output folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read.
        """
        return read_json(Path(folder) / RUN_FILE, cls, "{file} does not describe a run: {why}")

    def save(self, folder: str | Path) -> None:
        """Write `dynprune_run.json` into an output folder, whole or not at all, without tokens, keys and passwords."""
        values = dataclasses.asdict(self)
        for name in ("mixes", "class_names", "data"):
            if not values[name]:
                del values[name]
        write_atomically(Path(folder) / RUN_FILE, (json.dumps(without_secrets(values), indent=1) + "\n").encode())
