"""Check where data and checkpoints go: lifetime, space, write access, network."""

from __future__ import annotations

import errno
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from vlwm.core.cloud.check import Check
from vlwm.core.cloud.provider import Provider
from vlwm.core.cloud.storage import lasting_folder, storage_of
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import disk_space, existing_folder

DATA_BYTES = 10 * 10**9
"""Tokyo's archive (2.1 GB), its tiles, ten sessions of 500 frames as bits (3 GB), weights"""
CHECKPOINTS_BYTES = 12 * 10**9
"""of 50 epochs: one each 5 epochs, best and last, both stages, 0.9 GB each with the optimizer"""
_LEAST_BYTES = 3 * 10**9  # less than this holds no run worth its rent
_PROBE_BYTES = 8 << 20
_SLOW_BYTES_S = 20e6
_PATIENCE_S = 4.0
_CLOCK_S = 300.0

HOSTS = (
    ("PLATEAU's catalogue", "https://api.plateauview.mlit.go.jp/datacatalog/plateau-datasets"),
    ("PLATEAU's archives", "https://gic-plateau.s3.ap-northeast-1.amazonaws.com/"),
    ("OccWorld's weights", "https://cloud.tsinghua.edu.cn/"),
    ("Hugging Face Hub", "https://huggingface.co/"),
)


def storage_check(path: Path, machine: Machine, provider: Provider) -> Check:
    """Check whether the files there outlive the machine."""
    storage = storage_of(path, machine, provider)
    detail = f"{storage.path}: {storage.reason}"
    if storage.outlives == "machine":
        return Check("storage", "ok", detail)
    if storage.outlives == "unknown":
        return Check(
            "storage",
            "warn",
            detail,
            "may be erased when the machine stops: save results elsewhere",
        )
    better = lasting_folder(machine, provider)
    if better is not None and not _under(storage.path, better):
        target = f"{better.rstrip('/')}/vlwm"
        fix = f"mkdir -p {target} && cd {target}, and work there: {better} lasts longer"
        make = (("mkdir", "-p", str(machine.path(target))),)
        return Check("storage", "warn", detail, fix, make if not machine.exists(target) else ())
    return Check("storage", "warn", detail, _copy_away(provider))


def _under(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _copy_away(provider: Provider) -> str:
    return {
        "vast": "mount a volume, or copy results away before you destroy the instance",
        "runpod": "attach a network volume (at /workspace), or copy results away",
        "lambda": "attach a file system (at /lambda/nfs/NAME), or copy results away",
        "colab": "from google.colab import drive; drive.mount('/content/drive')",
    }.get(provider.name, "mount a volume, or copy results away before the machine goes")


def disk_check(data: Path, work: Path, machine: Machine) -> Check:
    """Compare free space on the folders' own disks with what data and checkpoints need."""
    needs: dict[int, tuple[int, int]] = {}
    for path, need in ((data, DATA_BYTES), (work, CHECKPOINTS_BYTES)):
        space = disk_space(path, machine)
        if space is None:
            return Check("disk", "warn", f"{path}: unknown", f"look with df -h {path}")
        device = existing_folder(path, machine).stat().st_dev
        needs[device] = space.free_bytes, needs.get(device, (0, 0))[1] + need
    free, need = min(needs.values(), key=lambda pair: pair[0] - pair[1])
    detail = f"{free / 1e9:.0f} GB free, {need / 1e9:.0f} GB needed for data and checkpoints"
    if len(needs) > 1:
        detail += ", on the tighter of two disks"
    if free < _LEAST_BYTES:
        return Check("disk", "fail", detail, "free some space, or --data-dir on another disk")
    if free < need:
        fix = "rent more disk, or vlwm train --set checkpoint_config.max_keep_ckpts=2"
        return Check("disk", "warn", detail, fix)
    return Check("disk", "ok", detail)


def write_check(path: Path, machine: Machine, *, probe: bool) -> Check:
    """Write, flush and remove a few megabytes, since a quota does not show in the free bytes."""
    folder = existing_folder(path, machine)
    if not probe:
        good = os.access(folder, os.W_OK)
        detail = f"{folder} {'may' if good else 'cannot'} be written (not tried)"
        return Check("write", "ok" if good else "fail", detail, None if good else _elsewhere(""))
    target = folder / f".vlwm-probe-{os.getpid()}"
    start = time.monotonic()
    try:
        _write(target)
    except OSError as error:
        why = {errno.EDQUOT: "over quota", errno.ENOSPC: "full", errno.EROFS: "read-only"}
        reason = why.get(error.errno or 0, error.strerror or "not writable")
        return Check("write", "fail", f"{folder}: {reason}", _elsewhere(reason))
    finally:
        target.unlink(missing_ok=True)
    speed = _PROBE_BYTES / max(time.monotonic() - start, 1e-6)
    detail = f"{folder} takes {speed / 1e6:.0f} MB/s"
    if speed < _SLOW_BYTES_S:
        return Check("write", "warn", detail, "checkpoints will be slow; prefer a local disk")
    return Check("write", "ok", detail)


def _write(target: Path) -> None:
    with open(target, "wb") as handle:
        handle.write(os.urandom(_PROBE_BYTES))
        handle.flush()
        os.fsync(handle.fileno())


def _elsewhere(reason: str) -> str:
    if reason in ("full", "over quota"):
        return "free some space, or give a --work-dir on another disk"
    return "give a --work-dir that you own"


@dataclass(frozen=True)
class Reached:
    """Answer of a host."""

    name: str
    good: bool
    clock_ahead_s: float | None = None
    """how far this machine's clock is ahead of the host's"""


def reach(hosts: Sequence[tuple[str, str]] = HOSTS) -> list[Reached]:
    """Ask all hosts at once; any answer over HTTP counts."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(_reach, hosts))


def _reach(host: tuple[str, str]) -> Reached:
    name, url = host
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "vlwm"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date") if error.headers else None
    except (OSError, ValueError, http.client.HTTPException):
        return Reached(name, False)
    return Reached(name, True, _ahead(date))


def _ahead(date: str | None) -> float | None:
    try:
        return time.time() - parsedate_to_datetime(date).timestamp() if date else None
    except (TypeError, ValueError):
        return None


def network_check(found: Sequence[Reached] | None) -> Check:
    """Check which sources of data can be reached; None where nobody asked."""
    if found is None:
        return Check("network", "ok", "not asked (--offline)")
    silent = [one.name for one in found if not one.good]
    if not silent:
        return Check("network", "ok", f"all {len(found)} places of data answer")
    fix = "check the firewall or the proxy (https_proxy); vlwm download resumes by itself"
    return Check("network", "warn", f"no answer from {', '.join(silent)}", fix)


def clock_check(found: Sequence[Reached] | None) -> Check:
    """Check the clock: one that is far off breaks TLS and the order of files."""
    ahead = [one.clock_ahead_s for one in found or () if one.clock_ahead_s is not None]
    if ahead and min(abs(a) for a in ahead) > _CLOCK_S:
        return Check(
            "clock", "warn", f"{ahead[0] / 60:+.0f} minutes off", "sudo ntpdate pool.ntp.org"
        )
    if time.time() < 1.7e9:  # before 2023-11
        return Check("clock", "warn", "years behind", "sudo ntpdate pool.ntp.org")
    return Check("clock", "ok", "right" if ahead else "plausible")
