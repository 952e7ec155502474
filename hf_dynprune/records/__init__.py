"""What a run leaves on disk, and reading it back: history, scores, sample log, checkpoints. Imports no torch."""
