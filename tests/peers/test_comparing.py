"""The comparison of other libraries' tests: what counts as falling short. The suites themselves run by `make peers`."""

from __future__ import annotations

import json

import pytest

from tests.peers import __main__ as peers
from tests.peers.allowed import ALLOWED


@pytest.fixture
def compared(tmp_path):
    def write(name, rows):
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    stock = write(
        "stock",
        [
            ("tests/test_a.py::A::test_kept", "passed", ""),
            ("tests/test_a.py::A::test_lost", "passed", ""),
            ("tests/test_a.py::A::test_unseen", "passed", ""),
            ("tests/test_a.py::A::test_broken", "failed", "OSError: no hub"),
            ("tests/test_a.py::A::test_skipped", "skipped", "Skipped: needs a GPU"),
        ],
    )
    ours = write(
        "ours",
        [
            ("other/tests/test_a.py::A::test_kept", "passed", ""),
            ("other/tests/test_a.py::A::test_lost", "failed", "ValueError: no\nplan"),
            ("other/tests/test_a.py::A::test_broken", "passed", ""),
        ],
    )
    return peers.Comparison.of(stock, ours)


def test_what_passes_stock_alone_falls_short(compared):
    assert (compared.stock, compared.ours) == (3, 2)
    assert compared.short == {
        "test_a.py::A::test_lost": "ValueError: no\nplan",
        "test_a.py::A::test_unseen": "it was not run",
    }


def test_an_allowed_one_is_said_with_its_reason(compared, monkeypatch):
    assert compared.not_allowed == list(compared.short)
    monkeypatch.setitem(ALLOWED, "test_lost", "it lists the files of a run")
    assert compared.not_allowed == ["test_a.py::A::test_unseen"]
    text = peers.table({"transformers": compared})
    assert "| 3 | 2 | 2 | 1 |" in text
    assert "allowed: it lists the files of a run" in text
    assert "it was not run" in text


def test_at_most_five_are_allowed_and_each_says_why():
    assert len(ALLOWED) <= 5
    assert all(len(reason.split()) > 3 for reason in ALLOWED.values())


def test_files_for_several_processes_are_left_out(tmp_path):
    folder = tmp_path / "tests" / "trainer"
    folder.mkdir(parents=True)
    for name in (
        "test_trainer.py",
        "test_trainer_fsdp.py",
        "test_trainer_distributed_loss.py",
        "test_data_collator.py",
    ):
        (folder / name).touch()
    assert [file.rpartition("/")[2] for file in peers.SUITES[0].files(tmp_path)] == ["test_trainer.py"]


def test_stand_ins_load_as_from_the_hub(tmp_path, monkeypatch):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.peers import stand_ins

    name = "tiny-Qwen2ForCausalLM-2.5"
    monkeypatch.setattr(stand_ins, "CAUSAL", {name: stand_ins.CAUSAL[name]})
    monkeypatch.setattr(stand_ins, "CLASSIFIERS", {})
    pytest.importorskip("trl")
    stand_ins.write_stand_ins(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = load_dataset("trl-internal-testing/zen", "conversational_preference", split="train")
    words = AutoTokenizer.from_pretrained(f"trl-internal-testing/{name}")
    text = words.apply_chat_template(rows[0]["prompt"] + rows[0]["chosen"], tokenize=False)
    assert (len(rows), rows.column_names) == (17, ["prompt", "chosen", "rejected"])
    assert "Plain is better than<|im_end|>" in text
    assert words.decode(words("Plain is better").input_ids) == "Plain is better"
    AutoModelForCausalLM.from_pretrained(f"trl-internal-testing/{name}")
