"""What backends of the Trainer's log show beside single figures: histograms of scores and weights, and one picture.

They are sent through the backend's own client, found among the trainer's callbacks, and made only where there is one.
Single figures go through `Trainer.log`. Where nothing is pruned they go to the clients too, so that callbacks and a
`log` of the user's are called as in a stock run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.charts import BLACK, BLUE, ORANGE, bare, new_figure
from ..common.logs import logger
from ..records.record import EpochRecord
from ..records.savings import describe_account
from ..records.worth import EPOCHS, worth_of
from .context import TrainerContext

BINS = 64


def epoch_scalars(record: EpochRecord) -> dict[str, float]:
    """What `Trainer.log` is given at the end of an epoch, with a policy that prunes."""
    figures = {
        "kept": record.kept,
        "pruned_ratio": record.ratio,
        "max_weight": record.weight_range[1],
        "effective_samples": record.effective_samples,
        "nonfinite": record.nonfinite,
        "score_median": None if record.score_quantiles is None else record.score_quantiles[2],
        "projected_saving": record.projected_saving,
        "pruning_runtime": record.seconds_plan + record.seconds_merge,
    }
    shown = {f"dynprune/{name}": value for name, value in figures.items() if value is not None}
    return shown | worth_scalars(record)


def worth_scalars(record: EpochRecord) -> dict[str, float]:
    """Figures at the end of an epoch with any policy: whether choosing could pay."""
    figures = {"concentration": record.concentration, "staleness": record.staleness}
    if record.concentration is not None:
        figures["kappa"] = 1 / record.concentration
    return {f"dynprune/{name}": value for name, value in figures.items() if value is not None}


def report_savings(context: TrainerContext) -> None:
    """Lines at a run's end, a picture for the backends that show one, and one figure in the log.

    The line on the worth of choosing is of every run but those that are too short for it, or that a selector made.
    """
    training = context.training
    if context.is_first and training.selector is None and not training.is_stock:
        about = {"own_loss": context.own_loss or None, "mixes": context.mixes}
        worth = worth_of(training.history.records, context.state.log_history, about)
        why = f" Why: `hf-dynprune doctor {shlex.quote(context.run_folder)}`." if worth.reasons else ""
        if worth.missing != EPOCHS:
            logger.info("%s%s", worth.line, why)
    if not training.prunes:
        return
    account = training.history.account()
    if context.is_first:
        logger.info(describe_account(account))
        if training.selector is None:
            send_picture(context.callbacks, context.state.global_step, training.history.records)
    context.log({"dynprune/saved": account.saved})


class Backend(Protocol):
    """A place that logs go to."""

    def figures(self, figures: Mapping[str, float], step: int) -> None:
        """Show single figures, where `Trainer.log` would put them."""

    def histogram(self, name: str, values: NDArray[Any], step: int) -> None:
        """Show the distribution of finite values `[M]`."""

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Show RGB `[H, W, 3]`."""


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def figures(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def histogram(self, name: str, values: NDArray[Any], step: int) -> None:
        self.writer.add_histogram(f"train/{name}", values, step)

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        self.writer.add_image(f"train/{name}", picture, step, dataformats="HWC")


class _Module:
    """trackio and wandb, whose calls are the same; counts are sent instead of the values."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def figures(self, figures: Mapping[str, float], step: int) -> None:
        self._log(figures, step)

    def histogram(self, name: str, values: NDArray[Any], step: int) -> None:
        self._log({name: self.module.Histogram(np_histogram=np.histogram(values, BINS))}, step)

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        self._log({name: self.module.Image(picture)}, step)

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        self.module.log({f"train/{name}": value for name, value in row.items()} | {"train/global_step": step})


def find_backends(callbacks: Iterable[Any]) -> list[Backend]:
    """The backends that are active among a trainer's callbacks; on the first process only."""
    found: list[Backend] = []
    for callback in callbacks:
        kind = type(callback).__mro__
        names = {base.__name__ for base in kind}
        if "TensorBoardCallback" in names and callback.tb_writer is not None:
            found.append(_TensorBoard(callback.tb_writer))
        elif "TrackioCallback" in names and callback._initialized and hasattr(callback._trackio, "Histogram"):
            found.append(_Module(callback._trackio))
        elif "WandbCallback" in names and callback._wandb is not None and callback._wandb.run is not None:
            found.append(_Module(callback._wandb))
    return found


def send_figures(callbacks: Iterable[Any], step: int, figures: Mapping[str, float]) -> None:
    """Send single figures to the backends alone, past `Trainer.log`."""
    if figures:
        _send([partial(backend.figures, figures, step) for backend in find_backends(callbacks)], "a figure")


def send_histograms(callbacks: Iterable[Any], step: int, arrays: Callable[[], Mapping[str, NDArray[Any]]]) -> None:
    """Send the distribution of each array's finite values; `arrays` is called only where there is a backend."""
    backends = find_backends(callbacks)
    if not backends:
        return
    for name, values in arrays().items():
        finite = values[np.isfinite(values)]
        if len(finite):
            _send([partial(backend.histogram, name, finite, step) for backend in backends])


def send_picture(callbacks: Iterable[Any], step: int, records: Sequence[EpochRecord]) -> None:
    """Send the picture of the run; without matplotlib there is none."""
    backends = find_backends(callbacks)
    if not backends or not records:
        return
    try:
        picture = history_picture(records)
    except ImportError:
        return
    except Exception as error:  # a broken matplotlib is no reason to stop before the last save
        logger.warning("There is no picture of the run in the log: %s", error)
        return
    _send([partial(backend.image, "dynprune/run", picture, step) for backend in backends])


def history_picture(records: Sequence[EpochRecord]) -> NDArray[np.uint8]:
    """RGB `[H, W, 3]`: share kept in each epoch, and the scores that it was chosen by.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(6.4, 5.4, 110)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    kept, scores = figure.subplots(2, 1, sharex=True)
    epochs = [record.epoch + 1 for record in records]
    kept.plot(epochs, [100 * record.kept / record.num_samples for record in records], "o-", color=BLUE)
    kept.set(ylim=(0, 105), ylabel="samples kept (%)")
    scored = [(record.epoch + 1, record.score_quantiles) for record in records if record.score_quantiles is not None]
    if scored:
        at, quantiles = [epoch for epoch, _ in scored], np.array([values for _, values in scored])
        scores.fill_between(at, quantiles[:, 1], quantiles[:, 3], color=ORANGE, alpha=0.4, label="middle half")
        scores.plot(at, quantiles[:, 2], "o-", color=BLACK, label="median")
        scores.legend(frameon=False)
    scores.set(xlabel="epoch", ylabel="score at its start")
    scores.xaxis.get_major_locator().set_params(integer=True)
    for axes in (kept, scores):
        bare(axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _send(calls: list[Callable[[], None]], what: str = "a histogram or picture") -> None:
    """Make one call for each backend; a backend that fails is no reason to stop training."""
    for call in calls:
        try:
            call()
        except Exception as error:
            logger.warning("A backend of the log did not take %s of data pruning: %s", what, error)
