"""Fixtures of several rooms: score views, epochs, generators whose draws are written down, and files of `datasets`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hf_dynprune.decisions.plan import EpochInfo
from hf_dynprune.decisions.scores import ScoreView
from hf_dynprune.testing import policies, views

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# `make test-decisions`: the heavy libraries cannot be imported, as if they were not installed.
if os.environ.get("HF_DYNPRUNE_TEST_WITHOUT_TORCH"):
    sys.modules.update(dict.fromkeys(["torch", "transformers", "accelerate", "datasets"]))


@pytest.fixture(scope="module", autouse=True)
def freeze_what_is_imported():
    """Each training run collects garbage, which takes half its time where that looks through every imported module."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def loaders_of_the_past_end_soon():
    """A loader that is garbage cannot tell its workers to end: torch stops each one after 5 seconds, here sooner."""
    utils = sys.modules.get("torch.utils.data._utils")
    with pytest.MonkeyPatch.context() as patch:
        if utils is not None:
            patch.setattr(utils, "MP_STATUS_CHECK_INTERVAL", 0.5)
        yield


@pytest.fixture
def quiet_data_sets(monkeypatch, tmp_path):
    """No bars, no files of the data set preparation outside the test, no message to TRL's makers."""
    import datasets

    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def view_of() -> Callable[..., ScoreView]:
    """`view_of([0.5, None, (1.0, nan)])`: one sample visited once, one never, one in two epochs."""

    return views.view_of


@pytest.fixture(scope="session")
def epoch_at() -> Callable[..., EpochInfo]:
    """`epoch_at(2)`: the third of ten full-length epochs, of a run whose figures speak for choosing samples."""

    def make(epoch: int, num_epochs: int = 10, seed: int = 0) -> EpochInfo:
        shown = policies.epoch_at(epoch)
        return EpochInfo(epoch, num_epochs, epoch / num_epochs, seed, shown.past, shown.proxy)

    return make


class WrittenLots:
    """A generator whose successive draws give the rows it was made from: coins as they are, of lots their ranks."""

    def __init__(self, *rows: Sequence[float]) -> None:
        self.rows = [np.array(row, dtype=np.float64) for row in rows]

    def random(self, n: int) -> np.ndarray:
        row = self.rows.pop(0)
        assert len(row) == n
        return row

    def integers(self, low: int, high: int, size: int, dtype: type, endpoint: bool) -> np.ndarray:
        ranks = np.unique(self.rows.pop(0), return_inverse=True)[1].astype(np.uint32)
        assert size == (len(ranks) + 1) // 2
        return np.append(ranks, np.zeros(len(ranks) % 2, np.uint32)).view(np.uint64)

    def spawn(self, n: int) -> list[WrittenLots]:
        return [self] * n


@pytest.fixture(scope="session")
def lots() -> type[WrittenLots]:
    return WrittenLots


@pytest.fixture
def own_datasets_cache(tmp_path, monkeypatch):
    """Files that `datasets` reads are kept for this test alone."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def no_datasets_bars():
    """`datasets` shows no progress."""
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
