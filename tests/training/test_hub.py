"""Pushes with the real client to a stand-in for the Hub (`hub_server.py`), from one process and from two."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from hf_dynprune import PruningHistory
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.run_scores import RunScores
from hf_dynprune.records.sample_log import SampleLog
from hf_dynprune.training.hub import HubPushes
from tests.benchmarks.report_scale import make_run
from tests.training.hub_server import HubServer

ROOT = Path(__file__).parents[2]
EPOCHS, SIZE, SAVES = 4, 48, 4
OURS = {"dynprune_history.jsonl", "dynprune_run.json", "dynprune_scores.safetensors"}
MODEL = {"config.json", "model.safetensors", "training_args.bin"}
STATE = {"dynprune_state.json", "dynprune_state.safetensors", "trainer_state.json", "optimizer.pt"}


def run(hub, folder, *command, **variables):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


class Launch:
    """What a launch left: the server's state, the output folders, what the runs found."""

    def __init__(self, hub, folder):
        self.hub, self.folder = hub, folder

    def found(self, name, rank=None):
        end = "" if rank is None else f".rank{rank}"
        found = json.loads((self.folder / f"{name}{end}.json").read_text())
        assert "crash" not in found, found["crash"]
        return found

    def files(self, name):
        return self.hub.files(f"user/{name}")

    def card(self, name):
        return ModelCard(self.files(name)["README.md"].decode())

    def logged(self, name, level):
        return [line for severity, line in self.found(name)["log"] if severity == level]


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as hub:
        run(hub, folder, "-m", "tests.training.hub_runs", str(folder))
        yield Launch(hub, folder)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    with HubServer() as hub:
        run(hub, folder, *torchrun, "-m", "tests.training.hub_runs", str(folder), "checkpoint", "commits_fail")
        yield Launch(hub, folder)


def assert_as_on_disk(files, folder):
    """What was pushed is there to the byte, and of what may be pushed nothing is missing."""
    on_disk = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not re.match(r"_|checkpoint-", str(file.relative_to(folder)))
    }
    pushed = {path: content for path, content in files.items() if not re.match(r"(last-)?checkpoint", path)}
    assert pushed.keys() == on_disk.keys()
    assert [path for path in pushed if pushed[path] != on_disk[path]] == []


class TestWhatIsPushed:
    @pytest.mark.parametrize("name", ["end", "every", "checkpoint", "all", "large"])
    def test_the_hub_has_the_output_folder_to_the_byte(self, launch, name):
        files = launch.files(name)
        assert files.keys() >= OURS | MODEL | {"README.md"}
        assert_as_on_disk(files, launch.folder / name)

    @pytest.mark.parametrize(
        ("name", "during"),
        [("end", 0), ("every", SAVES), ("large", SAVES), ("checkpoint", 2 * SAVES), ("all", 2 * SAVES)],
    )
    def test_each_strategy_pushes_as_often_as_it_says(self, launch, name, during):
        commits = launch.hub.commits(f"user/{name}")
        assert len(commits) == during + 1
        assert commits[-1].message == "End of training"
        for commit in commits[:-1]:
            is_state = commit.message.endswith(", checkpoint")
            names = {path.rpartition("/")[2] for path in commit.changed}
            assert names >= (STATE if is_state else OURS | MODEL), commit.message

    @pytest.mark.parametrize(("name", "places"), [("checkpoint", ["last-checkpoint"]), ("all", None)])
    def test_pushed_checkpoints_are_those_on_disk(self, launch, name, places):
        folders = sorted((launch.folder / name).glob("checkpoint-*"), key=lambda folder: int(folder.name[11:]))
        assert len(folders) == SAVES
        places = places or [folder.name for folder in folders]
        for place, folder in zip(places, folders[-len(places) :], strict=True):
            for file in folder.iterdir():
                assert launch.files(name)[f"{place}/{file.name}"] == file.read_bytes()

    def test_a_push_during_training_has_the_epochs_that_were_finished(self, launch):
        states = [commit.files for commit in launch.hub.commits("user/every")]
        lines = [len(files["dynprune_history.jsonl"].splitlines()) for files in states]
        # An upload reads the file in a thread of its own, when the epoch that ended with it may be written already.
        assert all(count <= found <= count + 1 for count, found in enumerate(lines[:-1])), lines
        assert lines[-1] == EPOCHS

    def test_large_files_went_up_as_such(self, launch):
        assert [path for kind, path, _ in launch.hub.requests if kind == "lfs" and "large" in path]
        assert launch.files("large")["model.safetensors"] in launch.hub.uploads.values()

    def test_nothing_of_this_machine_is_in_the_texts(self, launch):
        for name in ("end", "selected"):
            for path in ("README.md", "dynprune_run.json", "dynprune_history.jsonl"):
                assert str(launch.folder).encode() not in launch.files(name)[path]

    def test_without_pruning_the_push_is_the_stock_one_with_a_history(self, launch):
        files = launch.files("plain")
        assert OURS - files.keys() == {"dynprune_scores.safetensors"}
        assert b"Data pruning" not in files["README.md"]
        assert "data-pruning" not in launch.card("plain").data.tags

    def test_a_selector_has_no_scores(self, launch):
        assert OURS - launch.files("selected").keys() == {"dynprune_scores.safetensors"}
        assert "Selector (chooses inside each batch): `random`" in launch.card("selected").text
        assert "192 that were made to choose by" in launch.card("selected").text

    @pytest.mark.parametrize("rank", [0, 1])
    def test_only_the_first_of_two_processes_pushes(self, two_ranks, rank):
        for name in ("checkpoint", "commits_fail"):
            assert two_ranks.found(name, rank)["world_size"] == 2
        asked = {token for kind, _, token in two_ranks.hub.requests if kind != "control"}
        assert asked == {"rank-0"}
        assert len(two_ranks.hub.commits("user/checkpoint")) == 2 * SAVES + 1
        assert_as_on_disk(two_ranks.files("checkpoint"), two_ranks.folder / "checkpoint")


class TestReadingBack:
    def test_history_and_scores_come_back_from_the_hub(self, launch, tmp_path):
        code = """
            import json, sys
            from hf_dynprune import PruningHistory
            from hf_dynprune.records.run_scores import RunScores
            first = sys.argv[1]
            says = []
            for repo in ("user/no_repository", "user/never"):
                try:
                    PruningHistory.from_pretrained(repo)
                except Exception as error:
                    says.append(f"{type(error).__name__}: {error}")
            print(json.dumps({
                "history": PruningHistory.from_pretrained("user/every").as_dicts(),
                "third": len(PruningHistory.from_pretrained("user/every", revision=first)),
                "scores": RunScores.from_pretrained("user/every").score.tolist(),
                "says": says,
            }))
        """
        # A repository that has files, but none of ours.
        first, _, third, *_ = launch.hub.commits("user/every")
        others = {path: content for path, content in first.files.items() if path not in OURS}
        launch.hub.repos["user/no_repository"] = {"main": [dataclasses.replace(first, files=others)]}
        script = tmp_path / "read.py"
        script.write_text("\n".join(line[12:] for line in code.splitlines()))
        read = json.loads(run(launch.hub, tmp_path, str(script), third.oid).splitlines()[-1])
        assert read["history"] == PruningHistory.load(launch.folder / "every").as_dicts()
        assert read["third"] == len(third.files["dynprune_history.jsonl"].splitlines()) < EPOCHS
        assert read["scores"] == RunScores.from_pretrained(launch.folder / "every").score.tolist()
        none_there, no_repository = read["says"]
        assert none_there.startswith(
            "FileNotFoundError: The repository user/no_repository has no dynprune_history.jsonl: it is not the output"
        )
        assert no_repository.startswith("RepositoryNotFoundError")

    def test_scores_are_the_last_losses_and_counts_those_of_the_log(self, launch):
        scores = RunScores.from_pretrained(launch.folder / "end")
        history = PruningHistory.from_pretrained(launch.folder / "end")
        log = SampleLog(launch.folder / "end")
        assert scores.score.shape == (SIZE,)
        assert np.isfinite(scores.score).all()
        last = log.read(EPOCHS - 1)
        assert last.kept.all()
        np.testing.assert_allclose(scores.score, last.score, rtol=1e-3)
        assert scores.times_kept.sum() == sum(record.kept for record in history) < SIZE * EPOCHS
        np.testing.assert_array_equal(scores.times_kept, np.sum([epoch.kept for epoch in log], axis=0))
        assert (scores.epochs, scores.method, scores.fingerprint) == (EPOCHS, "infobatch", log.fingerprint)

    def test_a_folder_without_a_history_and_a_name_that_is_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="has no dynprune_history.jsonl: it is not the output of"):
            PruningHistory.from_pretrained(tmp_path)
        with pytest.raises(FileNotFoundError, match="There is no folder no/such/folder, and no repository can have"):
            PruningHistory.from_pretrained("no/such/folder")

    def test_damaged_scores(self, launch, tmp_path):
        whole = launch.files("end")["dynprune_scores.safetensors"]
        for content in (b"", whole[:40], whole[:-3]):
            (tmp_path / "dynprune_scores.safetensors").write_bytes(content)
            with pytest.raises(ValueError, match="dynprune_scores.safetensors of .* is damaged"):
                RunScores.from_pretrained(tmp_path)


class TestCard:
    def test_metadata_is_valid_and_says_what_was_measured(self, launch):
        text = launch.files("end")["README.md"].decode()
        assert text in launch.hub.validated
        metadata = yaml.safe_load(text.split("---")[1])
        assert {"data-pruning", "hf_dynprune", "dynprune-infobatch", "generated_from_trainer"} <= set(metadata["tags"])
        _, results = model_index_to_eval_results(metadata["model-index"])
        state = json.loads(
            (sorted((launch.folder / "end").glob("checkpoint-*"))[-1] / "trainer_state.json").read_text()
        )
        measured = [row for row in state["log_history"] if "eval_loss" in row][-1]
        assert {(result.metric_type, result.metric_value) for result in results} == {
            ("loss", measured["eval_loss"]),
            ("accuracy", measured["eval_accuracy"]),
        }
        assert {result.task_type for result in results} == {"image-classification"}

    def test_the_section_has_the_figures_of_the_history(self, launch):
        text, account = launch.card("end").text, PruningHistory.load(launch.folder / "end").account()
        about = AboutRun.load(launch.folder / "end")
        assert f"| forward passes | {account.training} | {account.full} | {account.saved:.1%} |" in text
        assert f"| optimizer steps | {account.steps} | {account.full_steps} |" in text
        for part in (
            "- Method: `infobatch` with ratio=0.5, delta=0.875",
            f"- Rule: {about.rule}",
            "- Unbiased: yes",
            "--prune_method infobatch",
            "[arXiv 2303.04947](https://arxiv.org/abs/2303.04947)",
            'from_pretrained("user/end")',
            f"transformers {about.versions['transformers']}",
        ):
            assert part in text

    def test_the_run_is_described(self, launch):
        about = AboutRun.load(launch.folder / "selected")
        assert (about.method, about.selector, about.parameters) == ("random", "random", {"ratio": 0.5})
        assert about.flags == {"prune_method": "none", "prune_selector": "random"}
        assert (about.num_epochs, about.num_samples, about.seed) == (EPOCHS, SIZE, 11)
        assert about.model == {"class": "ViTForImageClassification"}


class TestResumed:
    def test_a_resumed_run_pushes_on_and_ends_as_the_whole_one(self, launch):
        commits = launch.hub.commits("user/resumed")
        assert len(commits) == 2 * (SAVES + SAVES - 2) + 1
        assert_as_on_disk(launch.files("resumed"), launch.folder / "resumed")
        whole = commits[2 * SAVES - 2].files
        assert commits[-1].files["model.safetensors"] == whole["model.safetensors"]
        rows = [json.loads(line) for line in commits[-1].files["dynprune_history.jsonl"].splitlines()]
        assert [row["epoch"] for row in rows] == list(range(EPOCHS))


class TestFailingHub:
    def test_training_goes_on_and_one_error_is_logged(self, launch, two_ranks):
        found = launch.found("commits_fail")
        assert found["epochs"] == EPOCHS
        [error] = launch.logged("commits_fail", "ERROR")
        assert "A push to the Hub failed, and training goes on: HfHubHTTPError: Server error '500" in error
        [warning] = launch.logged("commits_fail", "WARNING")
        assert "Not on the Hub: checkpoint-42 and the model of that time" in warning
        errors = [line for level, line in two_ranks.found("commits_fail", 0)["log"] if level == "ERROR"]
        assert len(errors) == 1

    def test_a_push_that_is_asked_for_raises_and_loses_nothing(self, launch):
        found = launch.found("commits_fail")
        assert found["refused"] == "HfHubHTTPError"
        assert set(found["files"]) >= OURS | MODEL | {"README.md", "checkpoint-42"}
        assert_as_on_disk(launch.files("commits_fail"), launch.folder / "commits_fail")

    def test_what_failed_is_made_up_for_at_the_end_of_training(self, launch):
        assert len(launch.logged("recovers", "ERROR")) == 1
        assert launch.logged("recovers", "WARNING") == []
        assert "What could not be pushed while training is on the Hub now." in launch.logged("recovers", "INFO")
        files, folder = launch.files("recovers"), launch.folder / "recovers"
        for checkpoint in folder.glob("checkpoint-*"):
            for file in checkpoint.iterdir():
                assert files[f"{checkpoint.name}/{file.name}"] == file.read_bytes()
        assert_as_on_disk(files, folder)

    def test_what_fails_before_an_upload_begins_does_not_stop_training_either(self, tmp_path, caplog):
        def refuses(folder):
            raise ConnectionError("nobody there")

        context = SimpleNamespace(
            run_folder=str(tmp_path),
            args=SimpleNamespace(output_dir=str(tmp_path), hub_strategy="every_save"),
            is_first=True,
            uploads=[],
            add_digests=lambda folder: None,
            training=SimpleNamespace(scores_for_hub=lambda is_last: None),
        )
        pushes = HubPushes(context)
        for name in ("checkpoint-1", "checkpoint-2"):
            (tmp_path / name).mkdir()
            pushes.push(str(tmp_path / name), refuses)
        assert caplog.text.count("training goes on: ConnectionError: nobody there") == 1
        again = []

        def accepts(folder):
            again.append(Path(folder).name)
            uploaded = Future()
            uploaded.set_result(None)
            context.uploads = [uploaded]

        pushes.make_up(accepts, lambda: None)
        assert again == ["checkpoint-2"]
        assert "is on the Hub now" in caplog.text

    def test_a_hub_that_cannot_make_the_repository_is_told_when_the_trainer_is_built(self, launch):
        assert launch.found("no_repository")["refused"] == "HfHubHTTPError"


def test_without_matplotlib_the_last_push_has_the_report_without_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    make_run(tmp_path, 100, 3, classes=2)
    scores = SimpleNamespace(save=lambda folder: None)
    training = SimpleNamespace(scores_for_hub=lambda is_last: scores)
    HubPushes(SimpleNamespace(is_first=True, run_folder=str(tmp_path), training=training)).prepare(is_last=True)
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["report.html", "report.md"]
