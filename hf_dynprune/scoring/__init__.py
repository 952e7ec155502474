"""Scores made before a run for static pruning: forgetting, EL2N, GraNd."""
