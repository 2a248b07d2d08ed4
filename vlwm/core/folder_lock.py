"""Locks between processes, for files and folders, that also work on network disks.

`flock` is silently local on many network file systems. Creating a file exclusively is atomic on all
of them, so the lock *is* a file that names its owner. The owner touches it every few seconds while
it works. A lock is stale where its owner has ended: on the same machine the process table answers
(a process number that was reused is recognised by its start time), elsewhere, or in another
container, a lock that nobody touches for `stale_s` seconds. A stale lock is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError, UsageError
from vlwm.core.files import disown, explain_os_error, make_folder, own

LOCK_FILE = ".vlwm.lock"
"""name of the lock of a run folder or data folder"""
_HEARTBEAT_S = 5.0
_LOOK_S = 0.2


@contextlib.contextmanager
def folder_lock(
    folder: Path, work: str, say: Callable[[str], None], *, stale_s: float = 20.0
) -> Iterator[None]:
    """Hold a run folder or data folder while the block runs.

    Args:
        folder: is made where it is missing.
        work: the command that works in it, such as "vlwm train".
        say: gets a sentence where a stale lock is taken over or waited for.
        stale_s: seconds without a heartbeat after which a lock of another machine is stale.

    Raises:
        UsageError: another living process works in the folder.
    """
    made = not folder.exists()
    path = make_folder(folder) / LOCK_FILE
    try:
        with _held(path, work, say, wait_s=0.0, stale_s=stale_s, refuse=_refuse_folder):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds something by now
                folder.rmdir()


@contextlib.contextmanager
def file_lock(path: Path, *, wait_s: float = 0.0, stale_s: float = 60.0) -> Iterator[None]:
    """Hold `path` as the lock of a download while the block runs.

    Raises:
        DataError: another living process holds it for longer than `wait_s` seconds.
    """
    with _held(path, "vlwm download", _unsaid, wait_s, stale_s, _refuse_file):
        yield


def _unsaid(text: str) -> None:
    """Pass over a taken over lock in silence: what it locked is checked anyway."""


def _refuse_folder(path: Path, owner: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{owner.get('work', 'another vlwm')} (process {owner.get('pid', '?')} on "
        f"{owner.get('host', '?')}) is working in this folder",
        where=path.parent,
        remedy="wait until it ends or stop it, or use another folder",
    )


def _refuse_file(path: Path, owner: dict[str, Any]) -> DataError:
    return DataError(
        f"another vlwm process ({owner.get('pid', '?')} on {owner.get('host', '?')}) is "
        "downloading this file",
        where=path,
        remedy="wait for it to end, then run the same command again",
    )


_Refusal = Callable[[Path, dict[str, Any]], Exception]


@contextlib.contextmanager
def _held(
    path: Path,
    work: str,
    say: Callable[[str], None],
    wait_s: float,
    stale_s: float,
    refuse: _Refusal,
) -> Iterator[None]:
    _acquire(path, work, say, wait_s, stale_s, refuse)
    own(path)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        disown(path)


def _acquire(
    path: Path,
    work: str,
    say: Callable[[str], None],
    wait_s: float,
    stale_s: float,
    refuse: _Refusal,
) -> None:
    deadline = time.monotonic() + wait_s
    seen: float | None = None
    while not _create(path, work):
        owner, touched = _read(path)
        lives = _lives(owner)
        if lives is None:  # the process table does not answer: look for a heartbeat
            if seen is None:
                say(f"waiting up to {stale_s:.0f} s for a heartbeat of {_name(owner)} ({path})")
                seen = touched
            lives = True if touched != seen else None if _age_s(path) < stale_s else False
        if lives is False:
            if _take_away(path, owner):
                say(f"taking over from {_name(owner)}, which ended and left its lock ({path})")
            continue
        if lives and time.monotonic() >= deadline:
            raise refuse(path, owner)
        time.sleep(_LOOK_S)


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _create(path: Path, work: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise explain_os_error(error, path) from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"work": work, **_identity()}, file)
    return True


def _identity() -> dict[str, Any]:
    """Return what names this process among all that may share a disk."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "machine": _machine(),
    }


def _machine() -> str:
    """Return the boot of the machine and its process table: a container has its own."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks, empty where it cannot be read."""
    return "".join(_stat(pid)[19:20])


def _stat(pid: int) -> list[str]:
    """Return what /proc states of a process, from its state on; nothing where it is gone."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()
    return []


def _read(path: Path) -> tuple[dict[str, Any], float]:
    """Return the owner of a lock and when it was touched; an empty one where it is gone."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        touched = path.stat().st_mtime
    except (OSError, ValueError, RecursionError):
        with contextlib.suppress(OSError):
            return {}, path.stat().st_mtime
        return {}, 0.0
    return (value if isinstance(value, dict) else {}), touched


def _lives(owner: dict[str, Any]) -> bool | None:
    """Return whether the owner works; None where only its heartbeat can answer."""
    pid = owner.get("pid")
    here = owner.get("machine", _machine()) == _machine()
    if not here or owner.get("host") != socket.gethostname() or type(pid) is not int:
        return None
    state = _stat(pid)[:1]
    if state in ([], ["Z"], ["X"]):  # gone, or ended under a parent that never asks for it
        return False
    return owner.get("started", "") in ("", _started(pid))


def _age_s(path: Path) -> float:
    """Return the seconds since a lock was touched, by the clock of its own disk."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.clock")
    try:
        touched = path.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - touched
    except OSError:
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _take_away(path: Path, owner: dict[str, Any]) -> bool:
    """Remove a stale lock; another process that does so at the same time may be faster."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.stale")
    try:
        path.rename(aside)
    except OSError:
        return False
    taken, _ = _read(aside)
    if taken != owner:  # somebody else has taken it over in the meantime: give it back
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return taken == owner


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
