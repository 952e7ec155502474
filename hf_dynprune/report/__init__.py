"""The report on a finished run, its table of samples, and the section in its model card."""
