"""The main job of the README: the same small model with and without pruning."""
