"""Files are written whole, under names that nobody can guess, and through nobody's links."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from hf_dynprune.common.files import file_sha256, is_no_file, is_temporary, printable, write_atomically
from hf_dynprune.records.history import PruningHistory
from hf_dynprune.records.state_files import save_state

WRITERS = {
    "bytes": ("file.json", lambda path: write_atomically(path, b"new")),
    "what a function writes": ("file.bin", lambda path: write_atomically(path, lambda to: to.write_bytes(b"new"))),
    "not lasting": ("file", lambda path: write_atomically(path, b"new", is_lasting=False)),
    "a state": ("dynprune_state.safetensors", lambda path: save_state(path.parent, {"a": np.arange(3)}, {})),
    "a history": ("dynprune_history.jsonl", lambda path: PruningHistory().save(path.parent)),
}


@pytest.fixture(params=WRITERS)
def writer(request):
    return WRITERS[request.param]


def test_a_link_in_the_place_of_the_file_is_replaced(writer, tmp_path):
    name, write = writer
    outside, folder = tmp_path / "outside", tmp_path / "run"
    folder.mkdir()
    outside.write_bytes(b"precious")
    (folder / name).symlink_to(outside)
    write(folder / name)
    assert outside.read_bytes() == b"precious"
    assert not (folder / name).is_symlink()
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix == ".tmp") == []


def test_links_under_guessed_temporary_names_are_not_written_through(writer, tmp_path):
    name, write = writer
    outside, folder = tmp_path / "outside", tmp_path / "run"
    folder.mkdir()
    outside.write_bytes(b"precious")
    for guess in (f"_{name}.tmp", f"{name}.tmp", f"_{name}.0000000000000000.tmp"):
        (folder / guess).symlink_to(outside)
    write(folder / name)
    assert outside.read_bytes() == b"precious"
    assert (folder / name).is_file()


@pytest.mark.parametrize("in_the_way", ["file", "link", "broken link"])
def test_a_temporary_name_that_is_taken_is_an_error(in_the_way, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dynprune.common.files.secrets.token_hex", lambda size: "0123456789abcdef")
    outside, taken = tmp_path / "outside", tmp_path / "_file.0123456789abcdef.tmp"
    outside.write_bytes(b"precious")
    if in_the_way == "file":
        taken.write_bytes(b"precious")
    else:
        taken.symlink_to(outside if in_the_way == "link" else tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"new")
    assert outside.read_bytes() == b"precious"
    assert taken.is_symlink() or taken.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "file").exists()


def test_temporary_names_differ_and_are_known(tmp_path):
    seen = []
    for _ in range(20):
        write_atomically(tmp_path / "file", lambda to: seen.append(to.name) or to.write_bytes(b""))
    assert len(set(seen)) == 20
    assert all(is_temporary(name) and name.startswith("_") for name in seen)
    assert not any(map(is_temporary, ("_file.tmp", "file.0123456789abcdef.tmp", "_x.0123456789abcdeg.tmp")))


def test_who_may_read_a_file_is_the_users_choice(tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_atomically(tmp_path / "file", b"")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_atomically(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"
    assert printable(name) == r"caf\xe9"
    assert printable("café") == "café"
    assert json.loads(json.dumps(name)) == name


def test_digests_and_kinds_of_files(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 2**20)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 2**20).hexdigest()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    kinds = {name: is_no_file(tmp_path / name) for name in ("file", "pipe", "link", "broken", "nothing")}
    assert kinds == {"file": False, "pipe": True, "link": True, "broken": False, "nothing": False}
    assert not is_no_file(tmp_path)
    assert is_no_file(Path("/dev/null"))
