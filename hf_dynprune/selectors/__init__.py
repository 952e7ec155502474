"""Selectors: which rows of each batch are trained. One file each; the folder is scanned, so a new one is found."""
