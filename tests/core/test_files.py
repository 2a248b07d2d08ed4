"""A file under its final name is whole, or the old one is still there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlwm.core.errors import DataError, MachineError
from vlwm.core.files import atomic_path, explain_os_error, read_json, sha256_file, write_json


def test_json_round_trip_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"city": "東京", "n": [1, 2.5, None]})
    assert read_json(path) == {"city": "東京", "n": [1, 2.5, None]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    script = (
        "import sys; from vlwm.core.files import atomic_path\n"
        "n = 0\n"
        "while True:\n"
        "    with atomic_path(sys.argv[1]) as t: t.write_bytes(bytes([n % 256]) * 4_000_000)\n"
        "    n += 1; print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    for lines in (1, 2, 3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
        content = path.read_bytes()
        assert len(content) == 4_000_000 and len(set(content)) == 1


def test_full_disk_and_quota_are_one_sentence(tmp_path: Path) -> None:
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(MachineError, match="full or over quota"), atomic_path(tmp_path / "a"):
            raise OSError(code, os.strerror(code))
    assert isinstance(explain_os_error(OSError(errno.EROFS, "x"), tmp_path), MachineError)
    assert not list(tmp_path.iterdir())


def test_bad_json_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{\n  oops\n}")
    with pytest.raises(DataError, match=r"line 2 is not JSON.*a\.json"):
        read_json(path)
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_half_a_character_in_json_is_refused(tmp_path: Path) -> None:
    """A lone surrogate is valid JSON, and could be written into no file of ours."""
    path = tmp_path / "a.json"
    for text in ('{"city": "\\ud800"}', '["a", {"\\uDFFF b": 1}]'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"is half a character"):
            read_json(path)
    path.write_text('"\\ud83d\\ude00 \\\\ud800"')
    assert read_json(path) == "\U0001f600 \\ud800"


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == known


def test_a_path_of_the_wrong_kind_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (("folder", "a folder is where a file should be"),
                        ("file/x", "a file is where a folder should be"),
                        ("loop", "lead around in a circle"), ("x" * 300, "too long")):  # fmt: skip
        with pytest.raises(OSError) as caught:
            (tmp_path / path).read_bytes()
        found = explain_os_error(caught.value, tmp_path / path)
        assert isinstance(found, DataError) and words in str(found), found
