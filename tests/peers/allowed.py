"""Tests of other libraries that may pass with the stock trainer alone: at most five, each with its reason."""

ALLOWED: dict[str, str] = {}
"""Reason by a part of the test's name."""
