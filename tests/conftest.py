"""Shared by the tests that need torch: tiny models and data sets, stock and pruning trainers built alike."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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
