"""The log of single samples during a run. Only reports read it, so a failure in it never stops training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.logs import logger
from ..records.sample_log import SampleLog
from ..serving.labels import labels_and_names
from .epoch_run import EpochRun


class SampleLogging:
    """Writes a run's sample log, until something fails."""

    def __init__(self) -> None:
        self._log: SampleLog | None = None

    def begin(self, folder: str, dataset: Any, config: Any, run: EpochRun) -> None:
        """Begin the log of a run, or continue the log of the run that it resumes; `config` is the model's, or None."""
        log = SampleLog(folder)
        self._log = None
        try:
            labels, names = labels_and_names(dataset, config)
            log.begin(run.identity.num_samples, run.identity.fingerprint, labels, names, len(run.history))
        except Exception as error:  # a disk, or whatever a data set's own attributes raise
            logger.warning("There will be no log of single samples: %s: %s", type(error).__name__, error)
        else:
            self._log = log

    def write(self, run: EpochRun) -> None:
        """Write what the open epoch kept and which scores it recorded."""
        if self._log is None or run.plan is None or run.record is None:
            return
        try:
            self._log.write(run.record.epoch, run.plan, *run.store.pending())
        except OSError as error:
            self._log = None
            logger.warning("The log of single samples ends before epoch %d: %s", run.record.epoch + 1, error)

    def times_kept(self, run: EpochRun) -> NDArray[np.int32] | None:
        """`[N]`: epochs that kept each sample; None where the log lacks one, as after a resume into another folder."""
        if self._log is None or self._log.epochs != list(range(len(run.history))):
            return None
        kept = np.zeros(run.identity.num_samples, np.int32)
        for epoch in self._log:
            kept += epoch.kept
        return kept
