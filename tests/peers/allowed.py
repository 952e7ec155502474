"""Tests of other libraries that may pass with the stock trainer alone: at most five, each with its reason."""

ALLOWED = {
    "test_trainer.py::TrainerIntegrationTest::test_save_best_checkpoint": (
        "it counts the files of the output folder: `none` writes the run's description and history there, two files "
        "from which `hf-dynprune doctor` says whether pruning would pay"
    ),
}
"""Reason by a part of the test's name."""
