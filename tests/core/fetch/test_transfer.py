"""In the end the bytes are right or the error is one true sentence; never a wrong file."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.errors import DataError, MachineError
from vlwm.core.fetch import transfer as module
from vlwm.core.fetch.transfer import Policy, Transfer

QUICK = Policy(attempts=4, connect_s=2, stall_s=0.5, backoff_s=0.001, longest_pause_s=0.05)


def behaviour(kind: str, at: int = 0, value: str = "") -> Any:
    class Fault:
        pass

    fault = Fault()
    fault.kind, fault.at, fault.value = kind, at, value
    return fault


def get(site: Any, path: Path, **options: Any) -> Path:
    options.setdefault("policy", QUICK)
    return Transfer(f"{site.url}/file", path, **options).run()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [("cut", 1000)],
        [("cut", 1), ("cut", 50_000), ("cut", 0), ("cut", 7)],
        [("stall", 5000)],
        [("slow", 0)],
        [("ignore_range", 0)],
        [("cut", 9000), ("ignore_range", 0)],
        [("cut", 9000), ("change", 0)],
        [("wrong_length", 10)],
        [("gzip", 0)],
        [("cut", 5000), ("gzip", 0)],
        [("status", 500)],
        [("status", 503), ("cut", 3000), ("status", 429)],
        [("html", 0)],
        [("cut", 2000), ("html", 0)],
        [("status", 416)],
    ],
)
def test_faults_are_survived(site: Any, tmp_path: Path, faults: list[tuple[str, int]]) -> None:
    site.faults = [behaviour(kind, at) for kind, at in faults]
    path = get(site, tmp_path / "a.bin")
    assert path.read_bytes() == site.body
    assert leftovers(tmp_path) == ["a.bin"]


def test_a_cut_transfer_is_continued_not_repeated(site: Any, tmp_path: Path) -> None:
    site.faults = [behaviour("cut", 60_000)]
    get(site, tmp_path / "a.bin", sha256=site.sha256)
    assert site.requests[1]["Range"] == "bytes=60000-"
    assert site.requests[1]["If-Range"] == site.tag()


def test_a_changed_file_behind_a_server_that_ignores_if_range(site: Any, tmp_path: Path) -> None:
    site.faults = [behaviour("cut", 9000), behaviour("status", 404)]
    with pytest.raises(DataError):
        get(site, tmp_path / "a.bin")
    assert leftovers(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    site.body = bytes(reversed(site.body))
    site.faults = [behaviour("ignore_if_range")]
    assert get(site, tmp_path / "a.bin").read_bytes() == site.body


def test_without_validator_or_hash_a_part_is_not_trusted(site: Any, tmp_path: Path) -> None:
    site.etag = False
    site.faults = [behaviour("cut", 9000)]
    assert get(site, tmp_path / "a.bin").read_bytes() == site.body
    assert "Range" not in site.requests[1]


def test_with_a_hash_a_part_is_continued_without_validator(site: Any, tmp_path: Path) -> None:
    site.etag = False
    site.faults = [behaviour("cut", 9000)]
    get(site, tmp_path / "a.bin", sha256=site.sha256)
    assert site.requests[1]["Range"] == "bytes=9000-"


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([("status", 404)], "has no such file"),
        ([("status", 403)], "refuses access"),
        ([("status", 401)], "login"),
        ([("status", 500)] * 9, "answers 500"),
        ([("html", 0)] * 9, "web page"),
        ([("cut", 0)] * 9, r"download of .* failed: the connection broke"),
    ],
)
def test_a_final_failure_is_one_sentence(
    site: Any, tmp_path: Path, faults: list[tuple[str, int]], words: str
) -> None:
    site.faults = [behaviour(kind, at) for kind, at in faults]
    with pytest.raises(DataError, match=words) as error:
        get(site, tmp_path / "a.bin")
    assert error.value.exit_code == 4 and "\n" not in str(error.value)
    assert not (tmp_path / "a.bin").exists()


def test_a_wrong_hash_never_gets_the_final_name(site: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA-256"):
        get(site, tmp_path / "a.bin", sha256="0" * 64)
    assert leftovers(tmp_path) == []


def test_a_wrong_size_is_told_before_the_bytes_come(site: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="100000 bytes where the catalogue has 5"):
        get(site, tmp_path / "a.bin", size=5)
    assert not (tmp_path / "a.bin").exists()


def test_no_archive_under_an_archives_name(site: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a \.zip file"):
        get(site, tmp_path / "a.zip")
    assert leftovers(tmp_path) == []


def test_retry_after_is_honoured_within_reason(site: Any, tmp_path: Path) -> None:
    pauses: list[float] = []
    site.faults = [behaviour("status", 429, "7"), behaviour("status", 503, "100000")]
    policy = Policy(backoff_s=0.001, longest_pause_s=9.0)
    get(site, tmp_path / "a.bin", policy=policy, pause=pauses.append)
    assert pauses == [7.0, 9.0]


def test_a_signed_address_that_expired_is_asked_for_again(site: Any, tmp_path: Path) -> None:
    site.value_of_signature = "second"
    site.faults = [
        behaviour("redirect", 0, f"{site.url}/signed?s=first"),
        behaviour("redirect", 0, f"{site.url}/signed?s=second"),
    ]
    assert get(site, tmp_path / "a.bin").read_bytes() == site.body


def test_a_signature_is_never_shown(site: Any, tmp_path: Path) -> None:
    site.faults = [behaviour("status", 404)]
    with pytest.raises(DataError) as error:
        Transfer(f"{site.url}/file?token=secret", tmp_path / "a", policy=QUICK).run()
    assert "secret" not in str(error.value)


def test_a_full_disk_is_told_before_the_start(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda path: 1000)
    with pytest.raises(MachineError, match="GB are free"):
        get(site, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_a_file_that_is_there_is_not_asked_for(site: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(site.body)
    get(site, tmp_path / "a.bin", size=len(site.body))
    assert site.requests == []


def test_two_processes_do_not_write_one_file(site: Any, tmp_path: Path) -> None:
    lock = tmp_path / "a.bin.lock"
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        import json
        import socket

        lock.write_text(json.dumps({"host": socket.gethostname(), "pid": holder.pid}))
        with pytest.raises(DataError, match="another vlwm process"):
            get(site, tmp_path / "a.bin")
    finally:
        holder.kill()
        holder.wait()
    assert get(site, tmp_path / "a.bin").read_bytes() == site.body  # its owner is dead
    assert not lock.exists()


SCRIPT = """
import sys
from pathlib import Path
from vlwm.core.fetch.transfer import Policy, Transfer
Transfer(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3],
         policy=Policy(stall_s=5, backoff_s=0.01)).run()
"""


def test_killed_twice_it_goes_on_with_the_right_hash(site: Any, tmp_path: Path) -> None:
    site.body = os.urandom(1_500_000)
    path = tmp_path / "a.bin"
    command = [sys.executable, "-c", SCRIPT, f"{site.url}/file", str(path), site.sha256]
    for _ in range(2):
        site.faults = [behaviour("slow")]
        before = (tmp_path / "a.bin.part").stat().st_size if site.requests else 0
        with subprocess.Popen(command) as process:
            wait_until(lambda before=before: part_size(path) > before + 100_000)
            process.send_signal(signal.SIGKILL)
        assert not path.exists()
    site.faults = []
    subprocess.run(command, check=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == site.sha256
    assert int(site.requests[-1]["Range"].removeprefix("bytes=").rstrip("-")) > 200_000
    assert leftovers(tmp_path) == ["a.bin"]


def part_size(path: Path) -> int:
    part = path.with_name(path.name + ".part")
    return part.stat().st_size if part.exists() else 0


def wait_until(true: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


KINDS = (
    "cut", "cut", "cut", "slow", "stall", "wrong_length", "ignore_range", "change", "status",
    "html", "gzip", "ignore_if_range", "good",
)  # fmt: skip


def run_schedule(site: Any, folder: Path, seed: int) -> None:
    """A random sequence of faults; the outcome is the right bytes or one true sentence."""
    rng = random.Random(seed)
    site.body = rng.randbytes(rng.randint(1, 60_000))
    site.etag, site.ranges = rng.random() < 0.7, rng.random() < 0.8
    codes = (403, 404, 416, 429, 500, 502, 503)
    site.faults = [
        behaviour(kind, rng.choice(codes) if kind == "status" else rng.randint(0, 40_000))
        for kind in rng.choices(KINDS, k=rng.randint(0, 8))
    ]
    stalls = [f for f in site.faults if f.kind == "stall"]
    site.faults = [f for f in site.faults if f not in stalls[1:]]
    path = folder / f"{seed}.bin"
    hashed = rng.random() < 0.5 and not any(f.kind == "change" for f in site.faults)
    first = site.body
    try:
        get(site, path, sha256=site.sha256 if hashed else None)
    except DataError as error:
        assert "\n" not in str(error) and str(error)
        assert not path.exists()
    else:
        assert path.read_bytes() in (first, bytes(reversed(first)))
        assert path.read_bytes() == site.body or not hashed


@pytest.mark.parametrize("seed", range(15))
def test_fault_schedules(site: Any, tmp_path: Path, seed: int) -> None:
    run_schedule(site, tmp_path, seed)


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(200))
def test_many_fault_schedules(site: Any, tmp_path: Path, seed: int) -> None:
    run_schedule(site, tmp_path, 1000 + seed)
