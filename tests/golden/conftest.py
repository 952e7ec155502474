"""Lets `test_plans.py` be run as if the heavy libraries were not installed, as the tests in `tests/decisions` are."""

from __future__ import annotations

import os
import sys

if os.environ.get("HF_DYNPRUNE_TEST_WITHOUT_TORCH"):
    sys.modules.update(dict.fromkeys(["torch", "transformers", "accelerate", "datasets"]))
