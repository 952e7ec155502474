"""Reports: their figures are those of the files, every odd run gets one, and the HTML file needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from PIL import Image

from hf_dynprune import EpochRecord, InfoBatch, PrunePlan, PruningHistory
from hf_dynprune.records.folder import RunFolder
from hf_dynprune.records.record import HISTORY_FILE, RUN_FILE, HeldOut
from hf_dynprune.records.sample_log import SAMPLE_LOG, SampleLog
from hf_dynprune.report.groups import GROUPS, sample_groups
from hf_dynprune.report.page import Page, Picture, Section, Table, as_html, as_markdown
from hf_dynprune.report.sections import PICTURES
from hf_dynprune.report.statistics import gather
from hf_dynprune.report.write import write_report
from tests.benchmarks.report_scale import make_run, measure
from tests.support.helpers import Images, pruning_trainer, vit


class Checked(HTMLParser):
    """Tags that are opened and closed, pictures, and every address in the file."""

    EMPTY = ("meta", "img", "source", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.alts: list[str] = []
        self.pictures: list[bytes] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in given)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "img":
            self.alts.append(given["alt"])
            self.pictures.append(base64.b64decode(given["src"].removeprefix("data:image/png;base64,"), validate=True))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            assert not re.search(r"url\(|@import|@font-face", data)
        else:
            self.text.append(data)


def report(folder: Path, **options) -> tuple[str, Checked]:
    """Markdown, with line breaks as one blank, and the HTML file, checked."""
    file = write_report(folder, **options)
    html = Checked(file.read_text(encoding="utf-8"))
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in html.addresses)
    assert all(html.alts)
    text = (file.parent / "report.md").read_text(encoding="utf-8")
    beside = {picture.stem: picture.read_bytes() for picture in file.parent.glob("*.png")}
    named = re.findall(r"^!\[.+\]\((\w+)\.png\)$", text, re.MULTILINE)
    assert sorted(named) == sorted(beside)
    assert [beside[name] for name in named] == html.pictures
    assert not re.search(r"\bnan\b|\binf\b|None(?! of the)", text)
    return text, html


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the tables, without their heads' rules."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if not set("".join(line)) <= {"-", ":"}]


# ---- A real run ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = pruning_trainer(
        vit(),
        Images(60),
        folder,
        policy=InfoBatch(ratio=0.5, delta=0.9),
        num_train_epochs=5,
        eval_dataset=Images(8, seed=1),
        eval_strategy="epoch",
    )
    trainer.train()
    trainer.save_state()
    return folder, trainer


def test_a_report_says_what_the_files_say(finished):
    folder, trainer = finished
    text, html = report(folder, out=None)
    history = trainer.pruning_history.records
    account = trainer.savings
    assert (folder / "report" / "report.html").is_file()
    assert ["epochs done", "5 of 5 (finished)"] in rows(section(text, "The run"))
    spent = rows(section(text, "What it saved"))
    passes = [f"{account.full:,}", f"{account.training:,}", f"{account.saved_in_training:.1%}"]
    assert ["forward passes, training", *passes] in spent
    assert ["optimizer steps", str(account.full_steps), str(account.steps)] in [row[:3] for row in spent]
    shares = np.array([record.kept / 60 for record in history])
    assert 0.4 < shares.min() < 1
    kept = section(text, "Kept share by epoch")
    assert f"The smallest share was {shares.min():.1%}, in epoch {shares.argmin() + 1}; the mean" in kept
    assert f"over all epochs is {shares.mean():.1%}" in kept
    worth = min(record.effective_samples / record.kept for record in history)
    assert f"The weights cost at most {1 - worth:.1%}" in kept
    cuts = [record.pruned_scores[1] for record in history if record.pruned_scores]
    assert f"The largest pruned score was {cuts[0]:.3g} in epoch 2" in section(text, "Scores and threshold by epoch")
    epochs = list(SampleLog(folder))
    early, middle, late = (np.nanmedian(epochs[number].score) for number in (0, 2, 4))
    spoken = (
        f"{early:.3g} in epoch 1 (60 scored), {middle:.3g} in epoch 3 ({epochs[2].kept.sum()} scored) and {late:.3g}"
    )
    assert spoken in section(text, "Scores early, in the middle, late")
    pruned = np.array([samples.kept for samples in epochs if not samples.kept.all()])
    always, never = pruned.all(0).mean(), 1 - pruned.any(0).mean()
    said = f"Here, over {len(pruned)} such epochs, {always:.1%} of the samples were kept always, "
    assert said + f"{1 - always - never:.1%} sometimes and {never:.1%} never." in text
    by_class = [pruned[:, Images(60).labels.numpy() == label].mean() for label in range(3)]
    least, most = np.argmin(by_class), np.argmax(by_class)
    said = f"least kept class is “{least}” with {min(by_class):.1%}, the most kept “{most}” with {max(by_class):.1%}"
    assert said in section(text, "Classes")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert f"training loss {losses[0]:.3g} to {losses[-1]:.3g}" in section(
        text, "Loss and learning rate over forward passes"
    )
    assert len(html.pictures) == len(PICTURES)
    assert "What could not be read" not in text


def test_samples_are_shown_as_pictures_with_class_and_score(finished, tmp_path):
    folder, trainer = finished
    _, html = report(folder, dataset=trainer.train_dataset, out=tmp_path / "shown")
    assert {file.stem for file in (tmp_path / "shown").glob("*.png")} == {*PICTURES, *GROUPS}
    samples = gather(SampleLog(folder))
    for group, alt in zip(sample_groups(samples), html.alts[-3:], strict=True):
        first = group.indices[0]
        assert alt.startswith(f"{group.title}: class {Images(60).labels[first]}, score {samples.score[first]:.3g}")
    # Without the data set the next report shows none, and leaves none of the last one.
    report(folder, out=tmp_path / "shown")
    assert {file.stem for file in (tmp_path / "shown").glob("*.png")} == set(PICTURES)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Images(59), r"The data set has 59 samples, the run's had 60\. Scores belong to positions, .* `write_report"),
        (
            Images(60, seed=1),
            r"has the run's number of samples, 60, but other columns, other labels or another order\.",
        ),
        ("digits", r"digits is not the training set of this run: .*number of samples, 60, but other"),
        ("no/where", r"no/where is not the training set of this run: there is no folder no/where"),
    ],
)
def test_another_data_set_is_refused(finished, dataset, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_report(finished[0], dataset=dataset, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_with_a_selector_says_what_it_cannot_show(tmp_path):
    trainer = pruning_trainer(vit(), Images(40), tmp_path, prune_selector="orderdp")
    trainer.train()
    text, _ = report(tmp_path)
    kept = 1 - trainer.pruning_history[0].ratio
    assert f"The smallest share was {kept:.1%}" in text
    assert "forward passes, all" in text
    assert text.count("A run with a selector keeps no log of single samples") == 4
    with pytest.raises(ValueError, match="Samples cannot be shown. A run with a selector keeps no log"):
        write_report(tmp_path, dataset=trainer.train_dataset)


def test_the_trainers_state_of_a_checkpoint_will_do(tmp_path):
    """A run that was stopped: method and length come from its newest checkpoint that can be read."""
    trainer = pruning_trainer(
        vit(), Images(40), tmp_path, prune_method="infobatch", prune_ratio=0.4, save_strategy="epoch"
    )
    trainer.train()
    older, newest = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name[11:]))[-2:]
    (newest / "trainer_state.json").write_text('{"epoch": ')
    text, _ = report(tmp_path)
    assert ["method", "infobatch"] in rows(text)
    assert any(row[0] == "parameters" and "ratio 0.4" in row[1] for row in rows(text))
    assert f"trainer\\_state.json in {newest.name} is damaged" in section(text, "What could not be read")
    steps = json.loads((older / "trainer_state.json").read_text())["global_step"]
    assert RunFolder.read(tmp_path).state["global_step"] == steps


@pytest.mark.parametrize(
    "options",
    [{}, {"save_steps": 3, "eval_strategy": "steps", "eval_steps": 2}, {"save_steps": 4, "logging_steps": 1}],
    ids=["saved before the last evaluation", "evaluations at other steps", "a log of every step"],
)
def test_the_last_evaluation_counts_even_where_no_checkpoint_has_it(tmp_path, options):
    options = {"eval_strategy": "epoch", "save_strategy": "steps", "num_train_epochs": 4} | options
    trainer = pruning_trainer(
        vit(), Images(40), tmp_path, policy=InfoBatch(ratio=0.5, delta=0.9), eval_dataset=Images(8, seed=1), **options
    )
    trainer.train()
    losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    text, _ = report(tmp_path)
    assert f"evaluation loss {losses[0]:.3g} to {losses[-1]:.3g}" in section(
        text, "Loss and learning rate over forward passes"
    )
    log = RunFolder.read(tmp_path).state["log_history"]
    assert [row["eval_loss"] for row in log if "eval_loss" in row] == losses


def test_a_list_of_dictionaries_has_classes_and_pictures(tmp_path):
    images = Images(40)
    items = [dict(images[index]) for index in range(40)]
    trainer = pruning_trainer(vit(), items, tmp_path, policy=InfoBatch(ratio=0.5, delta=0.9), num_train_epochs=4)
    trainer.train()
    text, _ = report(tmp_path, dataset=items)
    assert ["classes", "3"] in rows(text)
    assert "least kept class is" in section(text, "Classes")
    assert "![" in section(text, "Samples to look at")
    with pytest.raises(ValueError, match="other labels or another order"):
        write_report(tmp_path, dataset=items[::-1])


# ---- Made-up runs ----


def made_up(folder: Path, kept: np.ndarray, score: np.ndarray, labels=None, names=None, **record) -> Path:
    """A run with this mask and these scores `[E, N]`."""
    size = kept.shape[1]
    log = SampleLog(folder)
    log.begin(size, "made up", labels, names, finished=0)
    records = []
    for epoch, (mask, scores) in enumerate(zip(kept, score, strict=True)):
        indices = np.flatnonzero(mask)
        plan = PrunePlan(indices, np.ones(len(indices)), size)
        scored = indices[np.isfinite(scores[indices])]
        log.write(epoch, plan, scored, scores[scored].astype(np.float32))
        facts = {
            "forward_passes": len(indices),
            "steps": -(-len(indices) // 4),
            "full_steps": -(-size // 4),
            "score_quantiles": None,
            **record,
        }
        records.append(
            EpochRecord(
                epoch,
                size,
                len(indices),
                nonfinite=0,
                ratio=plan.ratio,
                weight_range=[1, 1],
                projected_saving=None,
                **facts,
            )
        )
    PruningHistory(records).save(folder)
    return folder


RNG = np.random.default_rng(3)
KEPT = RNG.random((6, 40)) < 0.6
KEPT[[0, 5]] = True
SCORE = RNG.gamma(1.0, 1.0, (6, 40))
LABELS = np.arange(40) % 4


def test_statistics_are_those_of_each_samples_row(tmp_path):
    score = np.where(RNG.random((6, 40)) < 0.2, np.nan, SCORE)
    score[:, 7] = np.nan
    found = gather(SampleLog(made_up(tmp_path, KEPT, score, LABELS)))
    for index in range(40):
        seen = np.float16(score[:, index][KEPT[:, index] & np.isfinite(score[:, index])]).astype(float)
        assert found.times_kept[index] == KEPT[:, index].sum()
        assert found.times_chosen[index] == KEPT[1:5, index].sum()
        assert found.last_kept[index] == 5
        assert found.visits[index] == len(seen)
        assert found.score[index] == (seen[-1] if len(seen) else pytest.approx(np.nan, nan_ok=True))
        np.testing.assert_allclose(found.score_mean[index], seen.mean() if len(seen) else np.nan, rtol=1e-6)
        np.testing.assert_allclose(found.score_std[index], seen.std() if len(seen) > 1 else np.nan, rtol=1e-5)
    assert found.visits[7] == 0
    assert found.pruned_epochs == [1, 2, 3, 4]
    assert list(found.snapshots) == [0, 3, 5]
    expected = [[KEPT[epoch, label == LABELS].mean() for label in range(4)] for epoch in range(6)]
    np.testing.assert_allclose(found.kept_by_class, expected)


def test_groups_are_in_the_order_that_they_promise(tmp_path):
    found = gather(SampleLog(made_up(tmp_path, KEPT, SCORE, LABELS)))
    most, least, fluctuating = (group.indices.tolist() for group in sample_groups(found))
    by_times = sorted(range(40), key=lambda i: (-found.times_kept[i], -found.score[i]))
    assert most == by_times[:12]
    assert least == sorted(range(40), key=lambda i: (found.times_kept[i], found.score[i]))[:12]
    assert fluctuating == sorted(range(40), key=lambda i: -np.nan_to_num(found.score_std[i], nan=-1))[:12]


ODD = ["constant", "zero", "negative", "huge", "none", "one"]


@pytest.mark.parametrize(("score", "size"), [*((score, 40) for score in ODD), ("constant", 1)])
def test_odd_scores_get_a_report(tmp_path, score, size):
    """Warnings are errors here, those of numpy and matplotlib too."""
    values = {"constant": 1.5, "zero": 0.0, "negative": -SCORE, "huge": np.exp(15 * SCORE), "none": np.nan}.get(
        score, np.nan
    )
    scores = np.broadcast_to(values, SCORE.shape).copy()[:, :size]
    if score == "one":
        scores[2, 0] = 0.25
    kept = KEPT[:, :size].copy()
    kept[:, 0] = True
    finite = scores[np.isfinite(scores)]
    quantiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(finite) else None
    cut = None if quantiles is None else quantiles[:2]
    made_up(tmp_path, kept, scores, LABELS[:size], score_quantiles=quantiles, pruned_scores=cut)
    text, _ = report(tmp_path)
    assert ("No finite score was recorded." in text) == (score == "none")
    assert ("The first, the middle and the last epoch recorded no finite score." in text) == (score == "one")


@pytest.mark.parametrize("epochs", [1, 2, 6])
def test_short_runs_and_runs_that_never_pruned_get_a_report(tmp_path, epochs):
    made_up(tmp_path, np.ones((epochs, 40), bool), SCORE[:epochs], LABELS)
    text, _ = report(tmp_path)
    assert f"No epoch left samples out: each of the {epochs} kept all." in text
    assert f"None of the {epochs} logged epoch{'s' * (epochs > 1)} left samples out." in text
    assert "No logged epoch left samples out, so each has the classes of the data." in text
    assert "whether that is all is not recorded" in text


def test_before_the_first_epochs_end(tmp_path):
    PruningHistory([]).save(tmp_path)
    SampleLog(tmp_path).begin(40, "made up", LABELS, None, finished=0)
    text, html = report(tmp_path)
    assert text.count("No epoch is finished yet") == 4
    assert "The log of single samples has no epoch" in text
    assert html.pictures == []


def test_a_run_that_was_killed_between_two_files(tmp_path):
    """The log is written before the history; either may lack epochs that the other has."""
    made_up(tmp_path, KEPT, SCORE, LABELS)
    history = PruningHistory.load(tmp_path)
    PruningHistory(history.records[:4]).save(tmp_path)
    text, _ = report(tmp_path)
    assert ["epochs done", "4 (whether that is all is not recorded)"] in rows(text)
    assert "3 epochs of 4 left samples out" in text
    assert "over 4 such epochs" in text
    history.save(tmp_path)
    for epoch in (3, 4, 5):
        (tmp_path / SAMPLE_LOG / f"epoch-0000{epoch}.safetensors").unlink()
    text, _ = report(tmp_path)
    assert "4 epochs of 6 left samples out" in text
    assert "over 2 such epochs" in text


def test_a_damaged_epoch_is_named_and_passed_over(tmp_path):
    made_up(tmp_path, KEPT, SCORE, LABELS)
    for file in ("epoch-00002.safetensors", "labels.safetensors"):
        (tmp_path / SAMPLE_LOG / file).write_bytes(b"damaged")
    text, _ = report(tmp_path)
    assert gather(SampleLog(tmp_path)).epochs == [0, 1, 3, 4, 5]
    problems = section(text, "What could not be read")
    assert "epoch-00002.safetensors is damaged" in problems
    assert "labels.safetensors is damaged" in problems
    assert "over 3 such epochs" in text
    assert "The training set has no column or attribute of class numbers" in section(text, "Classes")
    for epoch in range(6):
        (tmp_path / SAMPLE_LOG / f"epoch-0000{epoch}.safetensors").write_bytes(b"damaged")
    text, _ = report(tmp_path)
    assert text.count("Every file of the log of single samples is damaged.") == 4


def test_records_of_an_older_version(tmp_path):
    made_up(tmp_path, KEPT, SCORE, LABELS, score_quantiles=[0.0, 0.5, 1.0, 2.0, 4.0])
    file = tmp_path / HISTORY_FILE
    new = (
        "full_steps",
        "effective_samples",
        "pruned_scores",
        "seconds_data",
        "seconds_evaluation",
        "seconds_checkpoint",
        "energy",
    )
    old = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [json.dumps({key: value for key, value in row.items() if key not in new}) for row in old]
    file.write_text("\n".join(lines) + "\n")
    text, _ = report(tmp_path)
    assert "The weights' effective sample size was not recorded." in text
    assert "or an older version did not record which" in text
    assert "optimizer steps" not in [row[0] for row in rows(text)]


def test_what_was_run_is_told_where_it_was_written_down(tmp_path):
    made_up(tmp_path, KEPT, SCORE, LABELS)
    facts = {"method": "infobatch", "parameters": {"ratio": 0.5, "draw": "count"}, "num_epochs": 10.0, "model": "a/b_c"}
    (tmp_path / RUN_FILE).write_text(json.dumps(facts | {"versions": {"torch": "2.6"}, "seed": 0, "selector": None}))
    text, html = report(tmp_path)
    told = rows(section(text, "The run"))
    for row in (["method", "infobatch"], ["parameters", "ratio 0.5, draw count"], ["model", "a/b\\_c"]):
        assert row in told
    assert ["versions", "torch 2.6"] in told
    assert ["seed", "0"] in told
    assert ["epochs done", "6 of 10 (unfinished)"] in told
    assert "a/b_c" in html.text
    (tmp_path / RUN_FILE).write_text("[1, 2]")
    text, _ = report(tmp_path)
    assert ["method", "not recorded"] in rows(text)
    assert "dynprune\\_run.json in" in section(text, "What could not be read")


def test_steps_become_forward_passes_by_the_epochs_that_they_were_made_in(tmp_path):
    """Two epochs of 10 steps with 40 passes, and 6 with 24; then on at the pace of the last."""
    from hf_dynprune.report.sections import _passes

    made_up(tmp_path, np.array([[True] * 40, [True] * 24 + [False] * 16]), SCORE[:2])
    records = PruningHistory.load(tmp_path).records
    records[0].forward_passes, records[0].steps = 80, 10
    PruningHistory(records).save(tmp_path)
    run = RunFolder.read(tmp_path)
    steps = np.array([0.0, 5, 10, 13, 16, 18])
    assert _passes(run, steps).tolist() == [0, 40, 80, 92, 104, 112]


def test_the_state_of_an_earlier_run_in_the_folder_is_passed_over(tmp_path):
    made_up(tmp_path, KEPT[:3], SCORE[:3])
    steps = sum(record.steps for record in PruningHistory.load(tmp_path))
    log = [{"step": 1, "loss": 0.5}]
    state = {"global_step": steps + 1, "max_steps": steps + 1, "epoch": 6.0, "num_train_epochs": 6, "log_history": log}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    text, _ = report(tmp_path)
    assert ["epochs done", "3 (whether that is all is not recorded)"] in rows(text)
    assert f"it is of {steps + 1} steps, the history of {steps}" in section(text, "What could not be read")
    assert "training loss 0.5" not in text
    (tmp_path / "trainer_state.json").write_text(json.dumps(state | {"global_step": steps, "max_steps": steps}))
    text, _ = report(tmp_path)
    assert "training loss 0.5" in text


def test_without_the_trainers_state_the_report_says_why(tmp_path):
    made_up(tmp_path, KEPT, SCORE)
    text, _ = report(tmp_path)
    assert "There is no `trainer_state.json` in this run." in text
    (tmp_path / "trainer_state.json").write_text('{"log_history": [{"step": 3, "eval_accuracy": 1.0}], "epoch": 5.5}')
    text, _ = report(tmp_path)
    assert "The Trainer logged neither loss nor learning rate" in text
    assert ["epochs done", "6 (whether that is all is not recorded)"] in rows(text)
    log = [{"step": 1, "loss": float("nan"), "learning_rate": 0.1}, {"step": 2, "learning_rate": 0.05}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    text, _ = report(tmp_path)
    assert "learning rate 0.1 to 0.05." in text
    assert "training loss" not in text


def test_figures_beside_the_checkpoints_log(tmp_path):
    """A newer figure of the history that is no loss is told beside the loss; small seconds are not shown as none."""
    figure = HeldOut("eval_accuracy", 0.5, True)
    made_up(tmp_path, KEPT[:3], SCORE[:3], held_out=figure, seconds_plan=0.02, seconds_checkpoint=0.0001)
    steps = sum(record.steps for record in PruningHistory.load(tmp_path))
    log = [{"step": steps // 2, "eval_loss": 1.5, "eval_accuracy": 0.4}]
    (tmp_path / f"checkpoint-{steps}").mkdir()
    state = {"global_step": steps, "max_steps": steps, "log_history": log}
    (tmp_path / f"checkpoint-{steps}" / "trainer_state.json").write_text(json.dumps(state))
    text, _ = report(tmp_path)
    assert f"no evaluation loss of the last evaluation, after step {steps}." in text
    assert ["seconds of pruning itself", "", "0.06", ""] in rows(text)
    assert ["seconds of checkpoints", "", "below 0.001", ""] in rows(text)


@pytest.mark.parametrize("classes", [2, 30, 31])
def test_many_classes_are_a_curve_with_the_extremes_named(tmp_path, classes):
    make_run(tmp_path, samples=40 * classes, epochs=3, classes=classes)
    text, _ = report(tmp_path)
    found = gather(SampleLog(tmp_path))
    shares = found.kept_by_class[1:].mean(0)
    assert f"“class {shares.argmin()}” with {shares.min():.1%}" in text
    named = [row for row in rows(section(text, "Classes")) if row[0].startswith("class ")]
    if classes <= 30:
        assert named == []
    else:
        assert len(named) == 20
        assert named[0] == [f"class {shares.argmin()}", str(found.class_sizes[shares.argmin()]), f"{shares.min():.1%}"]


def test_a_number_of_its_own_is_no_class(tmp_path):
    made_up(tmp_path, KEPT, SCORE, np.arange(40))
    text, _ = report(tmp_path)
    said = "The labels are known, but there are 40 different ones among 40 samples, fewer than two samples for each"
    assert said in section(text, "Classes")
    assert "no column" not in section(text, "Classes")
    assert rows(section(text, "Samples to look at"))[1][1] == ""


def test_classes_with_one_sample_each_are_shown_where_they_have_names(tmp_path):
    names = [f"kind of {number}" for number in range(50)]  # ten are not in the training set
    made_up(tmp_path, KEPT, SCORE, np.arange(40), names)
    text, html = report(tmp_path)
    told = section(text, "Classes")
    assert "There are 40 classes among 40 samples: the share of a class says little more than how often" in told
    shown = [row for row in rows(told) if row[0].startswith("kind of ")]
    assert len(shown) == 20
    assert {row[1] for row in shown} == {"1"}
    assert rows(section(text, "Samples to look at"))[1][1].startswith("kind of ")
    first = "50 classes: kind of 0, kind of 1, kind of 2, kind of 3, kind of 4, kind of 5 and 44 more"
    assert ["names of classes", first] in rows(text)
    assert len(html.alts) > 2


def test_masks_give_classes_where_the_log_has_none(tmp_path):
    from hf_dynprune.readers.data_sources import TrainingSet

    made_up(tmp_path, KEPT, SCORE)
    masks = np.where(LABELS == 0, 0, -1)
    found = gather(SampleLog(tmp_path), TrainingSet(None, masks, ("wall", "sky")))
    assert found.is_of_masks
    assert found.name_of(0) == "wall"
    assert found.classes.tolist() == [-1, 0]
    own = made_up(tmp_path / "own", KEPT, SCORE, LABELS, ["a", "b", "c", "d"])
    own = gather(SampleLog(tmp_path / "own"), TrainingSet(None, masks, ("wall", "sky")))
    assert not own.is_of_masks
    np.testing.assert_array_equal(own.labels, LABELS)


def test_classes_of_pixels_are_named_without_the_data(tmp_path):
    made_up(tmp_path, KEPT, SCORE, None, ["wall", "sky"])
    told = section(report(tmp_path)[0], "Classes")
    assert "The model tells apart 2 classes: wall, sky. Where each sample has a mask, `--data` with the folder" in told


NAMES = ["<script>alert(1)</script>", "a|b\nc `d` & *e*", "$x_2^", "日本語 " + "long " * 20]


def test_names_of_classes_are_only_text(tmp_path):
    made_up(tmp_path, KEPT, SCORE, LABELS, NAMES)
    text, html = report(tmp_path)
    shown = [row for row in rows(section(text, "Samples to look at")) if row[0] != "index"]
    assert {len(row) for row in shown} == {6}
    assert "\\<script\\>alert(1)\\</script\\>" in {row[1] for row in shown}
    assert NAMES[0] in html.text
    assert "<script" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_plain_text_stays_plain_in_both_forms():
    picture = Picture("shown", b"a picture", 'of [x] "><script>')
    table = Table(["x", "y"], [["p|q", "1"]], caption="C_")
    page = Page("<b>", [Section("A & B", ["see `a_b|c` and *this*"], [picture], [table])])
    assert as_markdown(page) == (
        "# \\<b\\>\n\n## A & B\n\nsee `a_b\\|c` and \\*this\\*\n\n"
        '![of \\[x\\] "\\>\\<script\\>](shown.png)\n\nC\\_:\n\n'
        "| x    | y |\n|------|--:|\n| p\\|q | 1 |\n"
    )
    html = Checked(as_html(page))
    assert html.alts == [picture.alt]
    assert html.pictures == [picture.png]
    assert {"a_b|c", "p|q", "<b>", "A & B"} <= set(html.text)


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_that_is_no_runs_is_refused(tmp_path, inside):
    run = tmp_path / "runs" / "first"
    if inside:
        run.mkdir(parents=True)
        PruningHistory([]).save(run)
    told = f"Runs are in {re.escape(str(run))}" if inside else "Pass the `output_dir` of a `DynPruneTrainer`"
    with pytest.raises(ValueError, match=rf"is no run's folder: there is no {HISTORY_FILE} in it\. {told}\."):
        write_report(tmp_path)


def test_every_picture_can_be_opened(finished, tmp_path):
    write_report(finished[0], out=tmp_path)
    for file in tmp_path.glob("*.png"):
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            assert picture.width == 952
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.slow
def test_a_million_samples_take_less_than_20_seconds_and_a_gigabyte_and_a_half(tmp_path):
    make_run(tmp_path, samples=1_000_000, epochs=30)
    seconds, peak = measure("report", tmp_path)
    assert seconds < 20
    assert peak < 1.5


def test_a_state_that_an_earlier_run_left_is_passed_over(tmp_path):
    """Shorter, so that its steps fit the history, but of another number of epochs; or with too many steps."""
    made_up(tmp_path, KEPT, SCORE)
    (tmp_path / RUN_FILE).write_text(json.dumps({"method": "random", "num_epochs": 20.0}))
    state = {"log_history": [{"step": 1, "loss": 3.0}], "global_step": 2, "max_steps": 2, "num_train_epochs": 2}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    run = RunFolder.read(tmp_path)
    assert run.state == {}
    assert not run.is_finished
    assert "it is of a run of 2 epochs, this one has 20" in run.problems[0]
    (tmp_path / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-1000").mkdir()
    (tmp_path / "checkpoint-1000" / "trainer_state.json").write_text(
        json.dumps(state | {"global_step": 1000, "num_train_epochs": 20})
    )
    run = RunFolder.read(tmp_path)
    assert run.state == {}
    assert "it is of 1,000 steps" in run.problems[0]


def test_a_checkpoint_inside_an_epoch_that_was_finished_since_changes_no_count(tmp_path):
    made_up(tmp_path, KEPT, SCORE)
    steps = sum(record.steps for record in PruningHistory.load(tmp_path))
    (tmp_path / "checkpoint-7").mkdir()
    state = {"log_history": [], "global_step": steps - 1, "epoch": len(KEPT) - 0.4}
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text(json.dumps(state))
    assert RunFolder.read(tmp_path).epochs_done == len(KEPT)


def test_epochs_that_the_log_lacks_are_named(tmp_path):
    made_up(tmp_path, KEPT, SCORE)
    (tmp_path / SAMPLE_LOG / "epoch-00000.safetensors").unlink()
    text, _ = report(tmp_path)
    assert "The log of single samples lacks epoch 1: what is said of samples is of the others." in text
