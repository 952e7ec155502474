"""Pushes to the Hub: what is put into the output folder before one, and what happens when one fails.

The Trainer uploads in a thread and looks at no result, so a failed push of a checkpoint would go unnoticed. Here the
failure is logged once and the push is repeated when training ends. A push by `push_to_hub` or `save_model` raises, as
in the stock Trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..common.logs import logger
from ..report.card import evaluation_of, update_card
from .context import TrainerContext


class HubPushes:
    """The pushes of one trainer; used on its first process."""

    def __init__(self, context: TrainerContext) -> None:
        self._context = context
        self._jobs: dict[str, list[Future[Any]]] = {}
        """Uploads by the checkpoint folder they were begun with."""
        self._newest = ""
        self._has_said = False
        self._without_report = False

    # ---- Files ----

    def prepare(self, is_last: bool) -> None:
        """Write what a push is to carry beside the model: scores, and at the end the report."""
        if not self._context.is_first:
            return
        folder = self._context.run_folder
        try:
            scores = self._context.training.scores_for_hub(is_last)
            if scores is None:
                return
            scores.save(folder)
        except (OSError, ValueError) as error:
            logger.warning("The push goes without the samples' scores: %s", error)
        if is_last:
            self._write_report(folder)

    def _write_report(self, folder: str) -> None:
        from ..report.write import write_report

        try:
            write_report(folder)
        except Exception as error:  # pictures are no reason to lose a push
            if not self._without_report:
                logger.warning("The push goes without a new report: %s", error)
            self._without_report = True

    # ---- Pushes of checkpoints ----

    def push(self, folder: str, stock: Callable[[str], None]) -> None:
        """Push as the Trainer does (`stock`), and watch the uploads; a failure never reaches the training loop."""
        self._newest = folder
        before = self._context.uploads
        try:
            self.prepare(is_last=False)
            self._context.add_digests(folder)
            stock(folder)
            jobs = [job for job in self._context.uploads if job not in before]
        except Exception as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            jobs = [failed]
        if jobs:
            self._jobs[folder] = jobs
        for job in jobs:
            job.add_done_callback(self._say_failure)

    def make_up(self, stock_push: Callable[[str], None], stock_wait: Callable[[], None]) -> None:
        """Push once more what failed, at the end of training, when no upload is under way.

        `stock_push` and `stock_wait` are the Trainer's `_push_from_checkpoint` and `_finish_current_push`.
        """
        if not self._missing():
            return
        for folder in self._missing():
            self.push(folder, stock_push)
            stock_wait()
            if folder in self._missing():
                break  # the others would fail as well, each after a minute of trying
        missing = [os.path.basename(folder) for folder in self._missing()]
        if missing:
            logger.warning(
                "Not on the Hub: %s and the model of that time. Both are in the output folder: `trainer.push_to_hub()` "
                "pushes the model, `hf upload` a checkpoint.",
                ", ".join(missing),
            )
        else:
            logger.info("What could not be pushed while training is on the Hub now.")
        self._jobs.clear()
        self._has_said = False

    def _missing(self) -> list[str]:
        """Checkpoint folders to push again; if the Hub keeps one checkpoint only, at most the newest of them."""
        failed = [folder for folder, jobs in self._jobs.items() if any(job.exception() for job in jobs)]
        if self._context.args.hub_strategy != "all_checkpoints":
            failed = [self._newest] if next(reversed(self._jobs), None) in failed else []
        return [folder for folder in failed if Path(folder).is_dir()]

    def _say_failure(self, job: Future[Any]) -> None:
        """Called in the thread of the upload."""
        error = job.exception()
        if error is not None and not self._has_said:
            self._has_said = True
            logger.error(
                "A push to the Hub failed, and training goes on: %s: %s. It is tried again at the next save and at the "
                "end of training; further failures are not logged.",
                type(error).__name__,
                error,
            )


def add_to_card(context: TrainerContext) -> None:
    """Write the section on data pruning into the card that the Trainer has just written."""
    output_dir = context.args.output_dir
    if not context.is_first or context.run_folder != str(output_dir):
        return  # a trial of a hyperparameter search has a folder of its own
    best = context.state.best_global_step if context.args.load_best_model_at_end else None
    try:
        evaluation = evaluation_of(context.state.log_history, best)
        update_card(output_dir, evaluation, repository=context.hub_model_id)
    except ValueError as error:
        logger.warning("The model card has no section on data pruning: %s", error)
