"""The loop of the examples: each planned run once, also on several processes; what its result depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..common.words import counted
from ..compare.plan import ComparisonArguments, PlannedRun
from ..compare.results import RunResult
from ..compare.runs import RunLoop
from ..serving.distributed import from_first_process
from ..serving.labels import dataset_fingerprint

NEUTRAL = frozenset(
    {
        *("output_dir", "run_name", "project", "report_to", "disable_tqdm", "local_rank"),
        *("log_level", "log_level_replica", "log_on_each_node", "logging_strategy", "logging_steps"),
        *("logging_first_step", "logging_nan_inf_filter", "include_num_input_tokens_seen", "skip_memory_metrics"),
        *("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "save_only_model"),
        *("enable_jit_checkpoint", "resume_from_checkpoint", "restore_callback_states_from_checkpoint"),
        *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory", "ddp_timeout"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "torch_empty_cache_steps"),
        *("per_device_eval_batch_size", "eval_accumulation_steps"),
        *("push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push"),
        *("hub_revision", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        *("check_images", "bad_files"),  # what they leave of the data shows in the data
        *ComparisonArguments.__dataclass_fields__,
    }
)
"""Flags that no result depends on, but for rounding: paths, logging, reports, saving, workers, the hub. With another
value of any other one, a finished run is not read back and an interrupted one does not go on.
"""


def run_all(
    runs: Sequence[PlannedRun],
    settings: ComparisonArguments,
    data: Mapping[str, Any],
    train: Callable[[PlannedRun], RunResult],
) -> list[RunResult]:
    """Make each run that has no result yet; read back the others, which must have been made alike.

    A result depends on the run, on `settings` (the example's arguments) and on `data` (data sets by split). `train`
    makes a run.

    With several processes the first one looks for finished runs.

    Raises:
        ValueError: a run that is there was made otherwise; names what differs.
    """
    if not runs:
        return []
    args = runs[0].args
    loop: RunLoop[PlannedRun] = RunLoop(
        total=len(runs),
        runner=_ExampleRunner(settings, data, train),
        find=partial(from_first_process, args),
        is_first=args.process_index == 0,
    )
    for run in runs:
        loop.make(run, "" if run.rate is None else f", {run.rate:g} times the learning rate")
    return loop.results


class _ExampleRunner:
    def __init__(
        self, settings: ComparisonArguments, data: Mapping[str, Any], train: Callable[[PlannedRun], RunResult]
    ) -> None:
        self._own = dataclasses.asdict(settings)
        if self._own.get("data"):
            path = Path(self._own["data"])
            self._own["data"] = str(path.resolve() if path.exists() else self._own["data"])
        self._of_data = {
            f"{split} data": f"{counted(len(rows), 'row')}, {dataset_fingerprint(rows)}" for split, rows in data.items()
        }
        self.run = train

    def settings(self, run: PlannedRun) -> dict[str, Any]:
        flags = {key: value for key, value in (self._own | run.args.to_dict()).items() if key not in NEUTRAL}
        own_policy = {} if run.policy is None else {"policy": repr(run.policy)}
        return flags | {"processes": run.args.world_size} | own_policy | self._of_data
