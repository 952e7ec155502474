"""What the package reads from files of others: the Trainer's state and metrics, and what runs wrote of themselves.

Each is a `TypedDict` for `read_json`: what is in it has the type that is said here, other keys may be there too.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from ..common.schema import MAY_BE_NAN, Between, Count
from ..decisions.dealing import Dealing, Layout
from ..decisions.proxy import GradientProxy
from ..decisions.schedule import EpochClock, RunLength
from .data_source import DataSource
from .record import EpochRecord, OpenRecord

Logged = dict[str, Annotated[Any, MAY_BE_NAN]]
"""A row of the Trainer's log, or metrics that it saved."""
Epochs = Annotated[float, Between(0, 1e9)]


class TrainerStep(TypedDict):
    """What `trainer_state.json` of a checkpoint must have for a resume."""

    global_step: Count


class TrainerFile(TypedDict, total=False):
    """`trainer_state.json`, as far as it is read for reports and comparisons."""

    global_step: Count
    max_steps: int
    num_train_epochs: int
    log_history: list[Logged] | None


class RunNotes(TypedDict, total=False):
    """`dynprune_run.json` for reports, which go without what is missing."""

    method: str | None
    selector: str | None
    num_epochs: Epochs | None
    parameters: dict[str, Any] | None
    class_names: list[str] | None
    data: DataSource | None
    mixes: bool | None
    own_loss: str | None


class WeightIndex(TypedDict):
    """`*.index.json` of weights in several files."""

    weight_map: dict[str, str]


# ---- The pruning state of a checkpoint ----


class Chosen(TypedDict):
    """The policy or selector of a saved run."""

    name: str
    parameters: dict[str, Any]


class SavedIdentity(TypedDict, total=False):
    """Seeds and lengths of a saved run; what else is in it is compared alone."""

    num_samples: Count
    seed: int
    stock_seed: int
    warmup_epochs: Count
    budget: str | None


class SavedClock(TypedDict):
    """Where in its schedule a saved run was."""

    length: RunLength
    current: EpochClock | None


class SavedSeeds(TypedDict):
    """Seeds that were in force."""

    draws: int
    order: int


class SavedBegin(TypedDict):
    """Where the history of a saved run begins."""

    step: Count
    share_before: Epochs


class SavedEstimate(TypedDict):
    """What the loss of the samples that are trained says of that of all, in the epoch of a saved run."""

    divisor: Annotated[float, Between(1e-30, 1e30)]
    offset: float
    weight: Annotated[float, Between(1e-30, 1e30)]


class SavedPosition(TypedDict):
    """Where in its pass a run with a selector was."""

    batches: Count
    first_step: Count
    is_pass_over: bool


class SavedState(TypedDict, total=False):
    """The facts in `dynprune_state.json`; which of them a run needs, it says itself (`require`)."""

    global_step: Count
    scheduler_steps: Count
    in_order: bool
    epoch_stopped: bool
    policy: Chosen
    selector: Chosen
    run: SavedIdentity
    layout: Layout
    dealing: Dealing
    clock: SavedClock
    position: SavedPosition
    open_record: OpenRecord | None
    history: list[EpochRecord]
    history_begins: SavedBegin | None
    seeds: SavedSeeds | None
    proxy: GradientProxy | None
    loss_of_data: SavedEstimate | None
    last_pruned_ratio: float
    warned_nonfinite: bool
    warned_budget: bool
    warned: list[bool]
