"""One run with TensorBoard and trackio: `python -m tests.training.logging_runs FOLDER BACKEND ...`.

A process of its own: trackio reads its folder (TRACKIO_DIR) when it is imported, and its import gives warnings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.helpers import Images, LoggedRows, pruning_trainer, vit


def main(folder: Path, backends: list[str]) -> None:
    trainer = pruning_trainer(
        vit(),
        Images(48),
        folder / "out",
        [logged := LoggedRows()],
        num_train_epochs=4,
        prune_method="infobatch",
        report_to=backends,
        logging_steps=5,
        run_name="tested",
        project="dynprune-test",
    )
    trainer.train()
    run = trainer._training.run
    found = {
        "log": logged.rows,
        "scores": run.store.view().score.tolist(),
        "history": trainer.pruning_history.as_dicts(),
    }
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
