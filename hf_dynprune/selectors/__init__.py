"""Selectors: which rows of each batch are trained. One file each."""
