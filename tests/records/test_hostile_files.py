"""Every file that the package reads, damaged in each way of a table: one ValueError that names file and key, or a right
reading. The cases are made from two tables: the files with the kind of each key, and what is put in a key's place.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from hf_dynprune.common.files import json_digest
from hf_dynprune.compare.folders import read_run
from hf_dynprune.compare.plan import with_recipes
from hf_dynprune.compare.results import RunResult
from hf_dynprune.compare.run_lines import RunLines
from hf_dynprune.compare.runs import other_settings
from hf_dynprune.readers.ade20k import class_names
from hf_dynprune.readers.class_folders import _by_list
from hf_dynprune.readers.imagenet import class_names as names_of_wnids
from hf_dynprune.readers.unreadable import _read_shared
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.folder import RunFolder
from hf_dynprune.records.history import PruningHistory
from hf_dynprune.records.record import EpochRecord, HeldOut
from hf_dynprune.records.run_scores import RunScores
from hf_dynprune.records.sample_log import SAMPLE_LOG, SampleLog
from hf_dynprune.records.score_file import StaticScores, load_scores
from hf_dynprune.records.state_files import load_state, save_state
from hf_dynprune.records.usable_checkpoint import why_unusable
from hf_dynprune.report.card import update_card

# ---- What is put in a key's place ----

RAW = {
    "null": "null",
    "text": '"x"',
    "minus one": "-1",
    "half": "0.5",
    "true": "true",
    "1e400": "1e400",
    "5,000 digits": "9" * 5000,
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "empty list": "[]",
    "empty object": "{}",
    "100 lists": "[" * 100 + "]" * 100,
    "half a surrogate pair": '"\\ud800"',
}
"""JSON, or what programs write for it."""
FITS = {
    "nothing": set(),
    "count": set(),
    "number": {"minus one", "half"},
    "share": {"half"},
    "nan": {"minus one", "half", "NaN", "-Infinity", "1e400", "5,000 digits"},
    "whole": {"minus one"},
    "text": {"text"},
    "flag": {"true"},
    "list": {"empty list"},
    "object": {"empty object"},
    "any": RAW.keys() - {"1e400", "5,000 digits", "NaN", "-Infinity", "100 lists", "half a surrogate pair"},
    "figures": RAW.keys() - {"100 lists", "half a surrogate pair"},
}
"""What may stand in the place of a key of each kind. With a ? behind the kind null may too, and the key may be missing;
with a ~ behind it, the key may be missing."""


@dataclass(frozen=True)
class Hostile:
    """One file that is read.

    Args:
        name: of the file, in a folder of its own.
        content: what is in it when it is whole.
        read: reads it, from the folder.
        keys: kinds of the keys, by their way through the content, with dots.
        write: puts the content's text in place, where that is more than a file.
        beside: writes the files that must lie beside it.
    """

    name: str
    content: Any
    read: Callable[[Path], Any]
    keys: dict[str, str] = field(default_factory=dict)
    write: Callable[[Path, str], None] | None = None
    beside: Callable[[Path], None] = lambda folder: None


def refused(reason: Any) -> None:
    """For readers that give the reason instead of raising."""
    if reason:
        raise ValueError(str(reason))


def of_state(folder: Path, text: str) -> None:
    """A pruning state whose facts are this text, with the right digests."""
    save_state(folder, {"a": np.zeros(1)}, {})
    signed_anew(folder / "dynprune_state.json", text)


def of_scores(folder: Path, text: str) -> None:
    StaticScores(np.ones(2, np.float32), np.ones((1, 2), np.float32), {}).save(folder / "s.safetensors")
    signed_anew(folder / "s.json", text)


def signed_anew(file: Path, facts: str) -> None:
    head = json.loads(file.read_text())
    try:
        head["facts_sha256"] = json_digest(json.loads(facts))
    except ValueError:
        head["facts_sha256"] = ""
    head["facts"] = "@"
    file.write_text(json.dumps(head).replace('"@"', facts))


RECORD = asdict(
    EpochRecord(
        *(0, 8, 4, 4, 1, 0, 0.5, [0.0, 0.1, 0.2, 0.3, 0.4], [1.0, 2.0], 0.2),
        pruned_scores=[0.0, 0.1],
        energy=1.0,
        stands_for=1.0,
        concentration=0.5,
        staleness=0.5,
        effective_samples=4.0,
        held_out=HeldOut("eval_loss", 0.5, False),
        reason="why",
    )
)
OF_RECORD = (
    dict.fromkeys(("epoch", "num_samples", "kept", "forward_passes", "steps", "nonfinite"), "count")
    | dict.fromkeys(("seconds_train", "seconds_plan", "seconds_data"), "number~")
    | dict.fromkeys(("score_quantiles", "pruned_scores", "held_out"), "nothing?")
    | dict.fromkeys(("staleness", "energy"), "number?")
    | dict.fromkeys(("concentration", "effective_samples", "stands_for"), "share?")
    | {"ratio": "share", "weight_range": "nothing", "full_steps": "count~", "share": "share~", "reason": "text?"}
    | {"held_out.name": "text", "held_out.value": "number", "held_out.greater_is_better": "flag"}
    | {"score_quantiles[1]": "number", "weight_range[0]": "number"}
)
OF_RECORD |= {"score_quantiles": "nothing!", "projected_saving": "number!"}  # which every record has

ABOUT = {
    "method": "infobatch",
    "parameters": {"ratio": 0.5},
    "selector": None,
    "class_name": "InfoBatch",
    "rule": "keeps",
    "unbiased": True,
    "prunes": True,
    "reference": "",
    "flags": {},
    "seed": 1,
    "num_epochs": 3.0,
    "num_samples": 8,
    "model": {"class": "M"},
    "versions": {"torch": "2"},
    "expression": None,
}
OF_ABOUT = (
    dict.fromkeys(("method", "class_name", "rule", "reference"), "text")
    | dict.fromkeys(("model.class", "versions.torch"), "text~")
    | dict.fromkeys(("unbiased", "prunes"), "flag")
    | dict.fromkeys(("parameters", "flags", "versions"), "object")
    | {
        "parameters.ratio": "any~",
        "seed": "whole",
        "num_samples": "count!",
        "num_epochs": "share!",
        "selector": "text!",
    }
)
STATE = {"global_step": 4, "max_steps": 4, "num_train_epochs": 3, "log_history": [{"step": 4, "eval_loss": 0.5}]}
OF_STATE = {"global_step": "count~", "max_steps": "whole~", "num_train_epochs": "whole~", "log_history": "list?"}
RESULT = {
    "name": "none",
    "seed": 0,
    "metrics": {"accuracy": 0.5},
    "forward_passes": 8,
    "full_passes": 8,
    "steps": 2,
    "seconds": 1.0,
}
OF_RESULT = dict.fromkeys(("forward_passes", "full_passes", "steps"), "count") | {
    "name": "text",
    "seed": "whole",
    "metrics": "object",
    "metrics.accuracy": "nan~",
    "seconds": "number",
}
OF_METRICS = {key: kind for key, kind in OF_RESULT.items() if key != "seed"}
FACTS = {
    "global_step": 4,
    "scheduler_steps": 4,
    "in_order": True,
    "epoch_stopped": False,
    "policy": {"name": "infobatch", "parameters": {"ratio": 0.5}},
    "run": {"num_samples": 8, "seed": 1, "stock_seed": 1, "warmup_epochs": 0},
    "layout": {"batch_size": 4, "accumulation": 1, "world_size": 1, "split_batches": False},
    "dealing": {"window": 4, "dealt": 0, "skipped": 0},
    "clock": {
        "length": {
            "updates_per_epoch": 2,
            "max_steps": 6,
            "num_epochs": 3.0,
            "fixed_steps": False,
            "full_epochs": None,
        },
        "current": {
            "epoch": 1,
            "start_step": 2,
            "updates": 2,
            "nominal_start": 2.0,
            "lr_start": 2.0,
            "lr_anchor": 2,
            "planned": 2,
            "nominal": 2,
        },
    },
    "open_record": None,
    "history": [RECORD],
    "last_pruned_ratio": 0.5,
    "warned_nonfinite": False,
    "seeds": {"draws": 1, "order": 1},
    "proxy": {"kind": "cross_entropy", "least": 0.0},
    "loss_of_data": {"divisor": 1.5, "offset": 0.25, "weight": 1.0},
}
OF_FACTS = (
    dict.fromkeys(("global_step", "scheduler_steps", "run.num_samples", "run.warmup_epochs"), "count~")
    | dict.fromkeys(("layout.batch_size", "layout.accumulation", "layout.world_size", "dealing.window"), "count")
    | dict.fromkeys(("clock.length.updates_per_epoch", "clock.current.epoch", "clock.current.updates"), "count")
    | dict.fromkeys(("in_order", "epoch_stopped", "warned_nonfinite", "layout.split_batches"), "flag~")
    | dict.fromkeys(("layout", "dealing", "clock", "policy", "proxy", "clock.length"), "nothing~")
    | dict.fromkeys(("history[0].kept", "history[0].epoch"), "count")
    | {"history": "list~", "run": "object~", "policy.name": "text", "seeds.draws": "whole", "clock.length": "nothing"}
    | {"proxy.kind": "nothing", "open_record": "nothing?", "proxy": "nothing?", "clock.current.lr_start": "number"}
    | dict.fromkeys(("loss_of_data.divisor", "loss_of_data.weight"), "share")
    | {"loss_of_data": "nothing?", "loss_of_data.offset": "number"}
)
LINE = {
    "task": "toy",
    "saving": 0.5,
    "arm": "full",
    "learning_rate": 0.1,
    "seed": 0,
    "digest": "0",
    "metrics": {"validation": 0.5, "test": 0.5},
    "seconds": 1.0,
    "concentration": [0.5, None],
}
OF_LINE = (
    dict.fromkeys(("task", "arm", "digest"), "text")
    | dict.fromkeys(("saving", "learning_rate", "metrics.validation", "metrics.test"), "number")
    | {"seed": "whole", "metrics": "nothing", "seconds": "number~", "concentration": "list~"}
)


def history_beside(folder: Path) -> None:
    PruningHistory([EpochRecord(0, 8, 8, 8, 4, 0, 0.0, None, [1, 1], 0.2)]).save(folder)


def trainer_checkpoint(folder: Path) -> None:
    save_state(folder, {"a": np.zeros(1)}, {"global_step": 4})
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    for name in ("model.safetensors", "shard.safetensors"):
        (folder / name).write_bytes(save({"a": np.zeros(1)}))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        shutil.make_archive(str(folder / "made"), "zip", folder, "trainer_state.json")
        (folder / "made.zip").rename(folder / name)


SHARED = {"check": "files", "train": 1}
JSON_FILES = {
    "history": Hostile("dynprune_history.jsonl", RECORD, PruningHistory.load, OF_RECORD),
    "run file": Hostile("dynprune_run.json", ABOUT, AboutRun.load, OF_ABOUT),
    "run file in a report": Hostile(
        "dynprune_run.json",
        ABOUT,
        lambda folder: refused(RunFolder.read(folder).problems),
        {"method": "text?", "selector": "text?", "num_epochs": "share?", "parameters": "object?"},
        beside=history_beside,
    ),
    "trainer state in a report": Hostile(
        "trainer_state.json",
        STATE,
        lambda folder: refused(RunFolder.read(folder).problems),
        {**OF_STATE, "log_history[0].eval_loss": "figures~"},
        beside=history_beside,
    ),
    "trainer state of a checkpoint": Hostile(
        "trainer_state.json",
        {"global_step": 4, "log_history": []},
        lambda folder: refused(why_unusable(folder)),
        {"global_step": "count"},
        beside=trainer_checkpoint,
    ),
    "index of weights": Hostile(
        "model.safetensors.index.json",
        {"weight_map": {"a": "shard.safetensors"}},
        lambda folder: refused(why_unusable(folder)),
        {"weight_map": "object"},
        beside=trainer_checkpoint,
    ),
    "head of a pruning state": Hostile(
        "dynprune_state.json",
        {"format_version": 3, "facts": {}, "facts_sha256": json_digest({}), "tensors_sha256": sha256(b"").hexdigest()},
        load_state,
        {"format_version": "nothing", "facts_sha256": "nothing", "tensors_sha256": "nothing"},
        beside=lambda folder: (folder / "dynprune_state.safetensors").write_bytes(b""),
    ),
    "facts of a pruning state": Hostile("dynprune_state.json", FACTS, load_state, OF_FACTS, of_state),
    "facts of a score file": Hostile(
        "s.json",
        {"method": "el2n", "num_samples": 2, "fingerprint": "f", "forward_passes": 8, "seconds": 1.0},
        lambda folder: load_scores(folder / "s.safetensors"),
        {
            "method": "text~",
            "num_samples": "count~",
            "fingerprint": "text?",
            "forward_passes": "count~",
            "seconds": "share~",
        },
        of_scores,
    ),
    "about the sample log": Hostile(
        f"{SAMPLE_LOG}/about.json",
        {"num_samples": 8, "fingerprint": "f", "class_names": ["a"]},
        lambda folder: [SampleLog(folder).num_samples, SampleLog(folder).class_names],
        {"num_samples": "count", "fingerprint": "text", "class_names": "list!", "class_names[0]": "text"},
    ),
    "result": Hostile("result.json", RESULT, lambda folder: RunResult.read(folder / "result.json"), OF_RESULT),
    "result of a comparison": Hostile("result.json", RESULT, lambda folder: read_run(folder, "none", 0), OF_METRICS),
    "settings": Hostile(
        "settings.json",
        {"method": "infobatch", "rates": [0.1]},
        lambda folder: other_settings(folder, {"method": "infobatch"}),
        {"method": "figures~", "rates[0]": "figures"},
        beside=lambda folder: (folder / "result.json").write_text("{}"),
    ),
    "metrics": Hostile(
        "eval_results.json",
        {"eval_loss": 0.5, "epoch": 1.0},
        lambda folder: read_run(folder, "none", 0),
        {"eval_runtime": "figures~"},
        beside=history_beside,
    ),
    "finished runs": Hostile("toy.jsonl", LINE, lambda folder: RunLines(folder, folder).read("toy"), OF_LINE),
    "bad pictures": Hostile(
        "bad.json",
        {"facts": SHARED, "bad": {"train": {"0": "cut off"}}},
        lambda folder: _read_shared(folder / "bad.json", SHARED),
        {"bad": "object", "bad.train": "object~", "bad.train.0": "text~", "facts": "nothing"},
    ),
}

# ---- Keys ----


def with_raw(content: Any, way: str, raw: str | None) -> str:
    """The content as JSON with the raw text at the end of the way, or without that key."""
    content = json.loads(json.dumps(content))
    *above, last = way.replace("[", ".[").split(".")
    place = content
    for step in above:
        place = place[int(step[1:-1])] if step.startswith("[") else place.setdefault(step, {})
    key: Any = int(last[1:-1]) if last.startswith("[") else last
    if raw is None:
        place.pop(key, None)
        return json.dumps(content)
    place[key] = "@@"
    return json.dumps(content).replace('"@@"', raw)


def written(case: Hostile, folder: Path, text: str) -> None:
    case.beside(folder)
    file = folder / case.name
    file.parent.mkdir(exist_ok=True)
    if case.write is not None:
        case.write(folder, text)
    else:
        file.write_text(text + "\n" * case.name.endswith("l"))


def fits(kind: str, value: str) -> bool:
    """Whether a value of `RAW`, or "missing", is right for a key of this kind."""
    plain = kind.rstrip("?~!")
    return value in FITS[plain] or (value == "null" and kind[-1] in "?!") or (value == "missing" and kind[-1] in "?~")


KEYS = [pytest.param(case, way, id=f"{name}: {way}") for name, case in JSON_FILES.items() for way in case.keys]


@pytest.mark.parametrize(("case", "way"), KEYS)
def test_a_value_of_a_wrong_type_is_one_error_that_names_file_and_key(case, way, tmp_path):
    kind = case.keys[way]
    for number, value in enumerate(("missing", *RAW)):
        if value == "missing" and way.endswith("]"):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        written(case, folder, with_raw(case.content, way, RAW.get(value)))
        if fits(kind, value):
            case.read(folder)
            continue
        with pytest.raises(ValueError, match=Path(case.name).stem) as caught:
            case.read(folder)
        said = str(caught.value)
        last = way.rpartition(".")[2].partition("[")[0]
        assert last in said or SAID_AS.get(last, last) in said, value
        assert len(said) < 800 + len(str(tmp_path))


SAID_AS = {
    "format_version": "format version",
    "facts_sha256": "SHA-256",
    "tensors_sha256": "SHA-256",
    "facts": "images",
}
"""How messages call keys that are no words of the language."""


# ---- Whole files ----

BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "blank": lambda content: b"  \n",
    "binary": lambda content: bytes(range(256)),
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "Latin-1": lambda content: b'{"caf\xe9": 1}\n',
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "cut off": lambda content: content[: len(content) // 2] + b"\n",
    "twice": lambda content: content.strip() + content,
    "a list": lambda content: b"[]\n",
    "a number": lambda content: b"1\n",
    "null": lambda content: b"null\n",
    "text": lambda content: b'"x"\n',
    "100,000 lists": lambda content: b"[" * 100_000 + b"\n",
    "100,000 objects": lambda content: b'{"a":' * 100_000 + b"\n",
    "a key twice": lambda content: content.strip()[:-1] + b", " + content.strip()[1:] + b"\n",
    "a surrogate in a key": lambda content: b'{"\\ud800": 1, ' + content.strip()[1:] + b"\n",
}


EMPTY = {("history", "empty"), ("finished runs", "empty"), ("finished runs", "blank")}
"""Files of lines without a line."""


@pytest.mark.parametrize("damage", [*BYTES, "a folder", "a pipe"])
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_file_that_is_no_such_file_is_one_error_that_names_it(name, damage, tmp_path):
    case = JSON_FILES[name]
    written(case, tmp_path, json.dumps(case.content))
    spoil(tmp_path / case.name, damage)
    if (name, damage) in EMPTY:
        assert not case.read(tmp_path)
        return
    with pytest.raises(ValueError, match=Path(case.name).name):
        case.read(tmp_path)


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    if damage in BYTES:
        file.write_bytes(BYTES[damage](content))
        return
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        os.mkfifo(file)


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_whole_file_is_read(name, tmp_path):
    if name == "head of a pruning state":
        return  # its arrays are another case's
    written(JSON_FILES[name], tmp_path, json.dumps(JSON_FILES[name].content))
    JSON_FILES[name].read(tmp_path)


# ---- Arrays ----


def epoch(**arrays: np.ndarray) -> bytes:
    return save({"kept_bits": np.array([255], np.uint8), "score": np.zeros(8, np.float16)} | arrays)


def scores(metadata: dict[str, str], **arrays: np.ndarray) -> bytes:
    return save(
        {"score": np.zeros(2, np.float32)} | arrays, {"fingerprint": "f", "epochs": "1", "method": "m"} | metadata
    )


LOG = Hostile(f"{SAMPLE_LOG}/epoch-00000.safetensors", epoch(), lambda folder: SampleLog(folder).read(0))
OF_LABELS = Hostile(
    f"{SAMPLE_LOG}/labels.safetensors", save({"label": np.zeros(8, np.int64)}), lambda f: SampleLog(f).labels
)
OF_RUN = Hostile("dynprune_scores.safetensors", scores({}), RunScores.from_pretrained)
ARRAYS = {
    "no bits": (LOG, save({"score": np.zeros(8, np.float16)}), "kept_bits"),
    "no score": (LOG, save({"kept_bits": np.array([255], np.uint8)}), "score"),
    "bits of another type": (LOG, epoch(kept_bits=np.ones(1)), "kept_bits"),
    "too few bits": (LOG, epoch(kept_bits=np.ones(0, np.uint8)), "kept_bits"),
    "too many bits": (LOG, epoch(kept_bits=np.ones(2, np.uint8)), "kept_bits"),
    "too few scores": (LOG, epoch(score=np.zeros(7, np.float16)), "score"),
    "scores of another type": (LOG, epoch(score=np.zeros(8, np.int8)), "score"),
    "scores of two axes": (LOG, epoch(score=np.zeros((8, 1), np.float16)), "score"),
    "no labels": (OF_LABELS, save({"labels": np.zeros(8, np.int64)}), "label"),
    "labels of another type": (OF_LABELS, save({"label": np.zeros(8)}), "label"),
    "labels of two axes": (OF_LABELS, save({"label": np.zeros((8, 2), np.int64)}), "label"),
    "no run scores": (OF_RUN, save({"a": np.zeros(1)}), "score"),
    "no header": (OF_RUN, save({"score": np.zeros(2, np.float32)}), "fingerprint"),
    "run scores of another type": (OF_RUN, scores({}, score=np.zeros(2, np.int64)), "score"),
    "times kept of another length": (OF_RUN, scores({}, times_kept=np.zeros(3, np.int32)), "times_kept"),
    "epochs as words": (OF_RUN, scores({"epochs": "two"}), "epochs"),
    "epochs of 5,000 digits": (OF_RUN, scores({"epochs": "9" * 5000}), "epochs"),
    "epochs below zero": (OF_RUN, scores({"epochs": "-1"}), "epochs"),
}


def log_beside(folder: Path) -> None:
    SampleLog(folder).begin(8, "f", None, None, finished=0)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_another_form_are_one_error_that_names_file_and_array(name, tmp_path):
    case, content, key = ARRAYS[name]
    log_beside(tmp_path)
    (tmp_path / case.name).write_bytes(case.content)
    case.read(tmp_path)
    (tmp_path / case.name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s){Path(case.name).name}.*`{key}`"):
        case.read(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "binary", "text", "a folder", "a pipe"])
@pytest.mark.parametrize("case", [LOG, OF_LABELS, OF_RUN], ids=["log", "labels", "run scores"])
def test_a_file_without_arrays_is_named(case, damage, tmp_path):
    log_beside(tmp_path)
    (tmp_path / case.name).write_bytes(case.content)
    spoil(tmp_path / case.name, damage)
    if damage in ("a folder", "a pipe") and case is OF_RUN:
        with pytest.raises(FileNotFoundError, match="has no dynprune_scores"):
            case.read(tmp_path)
        return
    with pytest.raises(ValueError, match=Path(case.name).name):
        case.read(tmp_path)


def test_more_samples_than_the_files_hold_take_no_memory(tmp_path):
    log_beside(tmp_path)
    (tmp_path / LOG.name).write_bytes(epoch())
    about = tmp_path / SAMPLE_LOG / "about.json"
    about.write_text(about.read_text().replace("8", str(2**50)))
    with pytest.raises(ValueError, match=r"about\.json is damaged \(`num_samples` must be at most 10000000"):
        _ = SampleLog(tmp_path).num_samples
    with pytest.raises(ValueError, match=r"epoch-00000\.safetensors is damaged \(`kept_bits` must have"):
        SampleLog(tmp_path).read(0)


# ---- Text, and cards ----


def recipe(folder: Path) -> Any:
    return with_recipes(["--recipe", "r"], folder)


TEXTS = {
    "recipe": ("r.args", "--a 1\n", recipe),
    "list of classes": ("objectInfo150.txt", "Idx\tName\n", class_names),
    "list of pictures": ("val_annotations.txt", "a.png\tn1\n", lambda f: _by_list(f / "val_annotations.txt", ["n1"])),
    "names of classes": ("words.txt", "n1\tcat\n", lambda folder: names_of_wnids([folder], ["n1"])),
    "card": ("README.md", "---\ntags: [a]\n---\ntext\n", lambda folder: update_card(folder)),
}


READ_ANYWAY = {("names of classes", "Latin-1"), ("names of classes", "UTF-16")}
"""Encodings in which lists of synsets are found."""
PASSED_OVER = ("list of classes", "names of classes", "card")


@pytest.mark.parametrize("damage", ["binary", "Latin-1", "UTF-16", "a folder", "a pipe"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_file_that_is_none_is_named(name, damage, tmp_path):
    file, content, read = TEXTS[name]
    (tmp_path / file).write_text(content)
    card_beside(tmp_path)
    spoil(tmp_path / file, damage)
    if (name, damage) in READ_ANYWAY or (damage in ("a folder", "a pipe") and name in PASSED_OVER):
        read(tmp_path)  # as if there were none, or no name in them
        return
    if damage in ("a folder", "a pipe"):
        file = Path(file).stem
    with pytest.raises(ValueError, match=file):
        read(tmp_path)


def card_beside(folder: Path) -> None:
    history_beside(folder)
    AboutRun(**ABOUT).save(folder)


CARDS = {
    "no YAML": "---\n: [\n---\n",
    "YAML without end": "---\ntags: [a\n---\n",
    "a list for a head": "---\n- a\n---\n",
    "deep": "---\ntags: " + "[" * 3000 + "]" * 3000 + "\n---\n",
    "tags are numbers": "---\ntags: [1, 2]\n---\n",
    "metrics are a number": "---\nmetrics: 1.5\n---\n",
    "an object to be made": "---\ntags: !!python/object:os.system {}\n---\n",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_whose_head_cannot_be_used_is_named(name, tmp_path):
    card_beside(tmp_path)
    (tmp_path / "README.md").write_text(CARDS[name])
    with pytest.raises(ValueError, match=r"README\.md is no model card: "):
        update_card(tmp_path)


@pytest.mark.parametrize("damage", BYTES)
def test_a_card_goes_without_a_comparison_that_cannot_be_read(damage, tmp_path):
    card_beside(tmp_path)
    (tmp_path / "README.md").write_text("text\n")
    comparison = {"settings": {"method": "infobatch"}, "sentences": ["It is lossless."]}
    (tmp_path / "compare.json").write_text(json.dumps(comparison))
    update_card(tmp_path)
    assert "It is lossless." in (tmp_path / "README.md").read_text()
    spoil(tmp_path / "compare.json", damage)
    update_card(tmp_path)
    assert "It is lossless." not in (tmp_path / "README.md").read_text()
    assert "was not measured in this run" in (tmp_path / "README.md").read_text()
