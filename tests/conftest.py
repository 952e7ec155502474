"""Shared by the tests that need torch: tiny models and data sets, stock and pruning trainers built alike."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
