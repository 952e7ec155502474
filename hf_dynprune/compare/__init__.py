"""Runs compared over seeds: whether a method is lossless, and methods at equal savings."""
