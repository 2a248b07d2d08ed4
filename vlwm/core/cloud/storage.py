"""Decide whether a folder outlives the machine, from the mount table and the provider's rules.

machine   outlives the rented machine (network volume, own disk)
stop      kept while the machine is stopped, gone when it is given back
nothing   gone when the machine stops
unknown
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlwm.core.cloud.provider import LAMBDA_VOLUMES, Provider
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import Mount, mount_of, read_mounts, resolved

_SYSTEM = ("/etc", "/proc", "/sys", "/dev", "/usr", "/run", "/boot", "/lib", "/lib64", "/snap",
           "/var", "/bin", "/sbin", "/opt/conda", "/tmp")  # fmt: skip
_PREFERRED = ("/workspace", "/data", LAMBDA_VOLUMES, "/mnt", "/content/drive", "/opt/ml")
_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs")


@dataclass(frozen=True)
class Storage:
    """Lifetime of a folder's files."""

    path: str
    """the folder, links followed"""
    mount: Mount | None
    """the file system that holds it"""
    outlives: str
    """machine, stop, nothing or unknown"""
    reason: str
    """one clause"""


def storage_of(path: str | Path, machine: Machine, provider: Provider) -> Storage:
    """Return the lifetime of files in `path`; the folder need not exist yet."""
    real = resolved(path, machine)
    mount = mount_of(real, read_mounts(machine))
    if mount is None:
        return Storage(real, None, "unknown", "the mount table cannot be read")
    outlives, reason = _lifetime(mount, provider)
    return Storage(real, mount, outlives, reason)


def _lifetime(mount: Mount, provider: Provider) -> tuple[str, str]:
    if mount.in_memory:
        return "nothing", f"{mount.point} is in memory ({mount.kind})"
    volume = _is_volume(mount)
    rule = {
        "vast": _vast,
        "runpod": _runpod,
        "lambda": _lambda,
        "colab": _colab,
        "kaggle": _kaggle,
        "sagemaker": _sagemaker,
        "container": _container,
    }.get(provider.name)
    if rule is not None:
        return rule(mount, volume)
    if mount.container_layer:
        return "nothing", "it is in a layer that is deleted with the system"
    return "machine", f"{mount.point} is a disk of this machine"


def _is_volume(mount: Mount) -> bool:
    """Return whether a mount is a file system of its own, meant for data."""
    kinds = mount.network or mount.kind in _FILE_SYSTEMS or mount.kind.split(".")[0] == "fuse"
    system = any(mount.point == top or mount.point.startswith(top + "/") for top in _SYSTEM)
    return mount.point != "/" and kinds and not system and not mount.container_layer


def _vast(mount: Mount, volume: bool) -> tuple[str, str]:
    if volume:
        return "machine", f"{mount.point} is a mounted volume"
    return "stop", "the container's disk is kept at stop and gone when the instance is destroyed"


def _runpod(mount: Mount, volume: bool) -> tuple[str, str]:
    if volume and mount.network:
        return "machine", f"{mount.point} is a network volume"
    if volume:
        return "stop", f"{mount.point} is the pod's volume, gone when the pod is terminated"
    return "nothing", "the container's disk is lost when the pod stops"


def _lambda(mount: Mount, volume: bool) -> tuple[str, str]:
    if mount.point.startswith(LAMBDA_VOLUMES):
        return "machine", f"{mount.point} is a persistent file system"
    return "nothing", "terminating the instance wipes its own disk"


def _colab(mount: Mount, volume: bool) -> tuple[str, str]:
    if mount.point.startswith("/content/drive"):
        return "machine", "Google Drive is mounted there"
    return "nothing", "the session's disk goes with the session"


def _kaggle(mount: Mount, volume: bool) -> tuple[str, str]:
    return "nothing", "only /kaggle/working of a saved version is kept"


def _sagemaker(mount: Mount, volume: bool) -> tuple[str, str]:
    if volume and mount.network:
        return "machine", f"{mount.point} is a network file system"
    return "nothing", "only folders that the job copies to S3 are kept"


def _container(mount: Mount, volume: bool) -> tuple[str, str]:
    if volume:
        return "machine", f"{mount.point} is mounted into the container"
    if mount.container_layer:
        return "nothing", "the container's own layer goes with the container"
    return "unknown", "whether the container's own disk is kept is up to its host"


def lasting_folder(machine: Machine, provider: Provider) -> str | None:
    """Return a mounted folder that outlives the machine, or at least a stop; None without one."""
    found = []
    for mount in read_mounts(machine):
        if not _is_volume(mount) or mount.read_only or not machine.path(mount.point).is_dir():
            continue
        outlives, _ = _lifetime(mount, provider)
        if outlives in ("machine", "stop"):
            found.append((outlives != "machine", _rank(mount.point), mount.point))
    return min(found)[2] if found else None


def _rank(point: str) -> int:
    for rank, start in enumerate(_PREFERRED):
        if point == start or point.startswith(start.rstrip("/") + "/"):
            return rank
    return len(_PREFERRED)
