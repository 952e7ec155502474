"""One training: what the trainer asks at each of its steps."""
