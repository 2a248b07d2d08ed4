"""A lock between processes that also works on network disks.

`flock` is silently local on many network file systems. Creating a file exclusively is atomic on all
of them, so the lock *is* a file that names its owner; the owner touches it while it works, and a
file that nobody touched for `stale_s` seconds belongs to a process that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from vlwm.core.errors import DataError
from vlwm.core.files import explain_os_error

_HEARTBEAT_S = 5.0


@contextlib.contextmanager
def file_lock(path: Path, *, wait_s: float = 0.0, stale_s: float = 60.0) -> Iterator[None]:
    """Hold `path` as a lock while the block runs.

    Raises:
        DataError: another living process holds it for longer than `wait_s` seconds.
    """
    _acquire(path, wait_s, stale_s)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        path.unlink(missing_ok=True)


def _acquire(path: Path, wait_s: float, stale_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not _create(path):
        if _is_stale(path, stale_s):
            path.unlink(missing_ok=True)
            continue
        if time.monotonic() >= deadline:
            raise DataError(
                f"another process ({_owner(path)}) is fetching this file",
                where=path,
                remedy="wait for it to end, then run the same command again",
            )
        time.sleep(0.2)


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except OSError as error:
        raise explain_os_error(error, path) from error
    with os.fdopen(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    return True


def _read_owner(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _owner(path: Path) -> str:
    owner = _read_owner(path)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _is_stale(path: Path, stale_s: float) -> bool:
    owner = _read_owner(path)
    pid = owner.get("pid")
    if owner.get("host") == socket.gethostname() and isinstance(pid, int):
        return not Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else False
    try:
        return time.time() - path.stat().st_mtime > stale_s
    except FileNotFoundError:
        return False


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
