"""One training: the objects that the trainer asks at each of its steps."""
