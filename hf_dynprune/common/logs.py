"""The package's logger: heard by default, since what a run can save is worth one line to everyone."""

from __future__ import annotations

import logging
import os

logger = logging.getLogger("hf_dynprune")


def _first_process(record: logging.LogRecord) -> bool:
    """Whether this process speaks for all: each of them logs the same lines."""
    return os.environ.get("RANK", "0") == "0"


class _UnlessConfigured(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error as long as the application has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


if not logger.handlers:
    logger.addFilter(_first_process)
    _handler = _UnlessConfigured()
    _handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
