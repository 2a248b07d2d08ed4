"""What outlives the machine, by mount table and provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fake_machine as fake
from vlwm.core.cloud.provider import Provider
from vlwm.core.cloud.storage import lasting_folder, storage_of
from vlwm.core.cloud.tensorboard import Board, board_of
from vlwm.core.hardware.machine import Machine

OVERLAY = ("/", "overlay", "overlay", "")
HOSTS = ("/etc/hosts", "ext4", "/dev/sda1", "")
Rows = tuple[tuple[str, str, str, str], ...]


def box(root: Path, rows: Rows, **environ: str) -> Machine:
    for point, *_ in rows:
        (root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
    fake.FakeMachine(root).write({"/proc/self/mountinfo": fake.mountinfo(*rows)})
    return Machine(root, environ)


def on(name: str, **variables: str) -> Provider:
    return Provider(name, "", "", False, variables)


@pytest.mark.parametrize(
    ("provider", "rows", "path", "outlives"),
    [
        ("vast", (OVERLAY, HOSTS), "/workspace/run", "stop"),
        ("vast", (OVERLAY, ("/workspace", "ext4", "/dev/nvme1", "")), "/workspace/run", "machine"),
        ("vast", (OVERLAY, ("/data", "xfs", "/dev/nvme1", "")), "/workspace/run", "stop"),
        ("runpod", (OVERLAY,), "/root/run", "nothing"),
        ("runpod", (OVERLAY, ("/workspace", "xfs", "/dev/sdb", "")), "/workspace/run", "stop"),
        ("runpod", (OVERLAY, ("/workspace", "fuse.mfs", "mfs#x", "")), "/workspace", "machine"),
        ("runpod", (OVERLAY, ("/workspace", "fuse", "mfs#eu", "")), "/workspace/run", "machine"),
        ("lambda", (("/", "ext4", "/dev/vda1", ""),), "/home/ubuntu/run", "nothing"),
        ("lambda", (("/", "ext4", "/dev/vda1", ""), ("/lambda/nfs/a", "nfs4", "s:/", "")),
         "/lambda/nfs/a/run", "machine"),
        ("colab", (OVERLAY,), "/content/run", "nothing"),
        ("colab", (OVERLAY, ("/content/drive", "fuse.drive", "d", "")), "/content/drive/MyDrive",
         "machine"),
        ("kaggle", (OVERLAY,), "/kaggle/working", "nothing"),
        ("sagemaker", (OVERLAY,), "/opt/ml", "nothing"),
        ("container", (OVERLAY, ("/data", "ext4", "/dev/sda1", "")), "/data/run", "machine"),
        ("container", (OVERLAY, HOSTS), "/etc/hosts", "unknown"),
        ("container", (OVERLAY,), "/home/run", "nothing"),
        ("linux", (("/", "ext4", "/dev/vda1", ""),), "/home/run", "machine"),
        ("linux", (OVERLAY,), "/home/run", "nothing"),
        ("linux", (("/", "ext4", "/dev/vda1", ""), ("/run/x", "tmpfs", "tmpfs", "")), "/run/x/a",
         "nothing"),
    ],
)  # fmt: skip
def test_what_outlives_the_machine(
    tmp_path: Path, provider: str, rows: Rows, path: str, outlives: str
) -> None:
    storage = storage_of(path, box(tmp_path, rows), on(provider))
    assert storage.outlives == outlives, storage.reason


def test_without_a_mount_table_it_is_unknown(tmp_path: Path) -> None:
    assert storage_of("/x", Machine(tmp_path, {}), on("linux")).outlives == "unknown"


def test_the_best_folder_that_lasts(tmp_path: Path) -> None:
    rows = (OVERLAY, HOSTS, ("/mnt/scratch", "ext4", "/dev/sdc", ""),
            ("/data", "ext4", "/dev/sdb", ""), ("/usr/lib/x", "ext4", "/dev/sda1", ""))  # fmt: skip
    assert lasting_folder(box(tmp_path, rows), on("vast")) == "/data"
    assert lasting_folder(box(tmp_path, (OVERLAY, HOSTS)), on("vast")) is None


def board(tmp_path: Path, provider: Provider, **environ: str) -> Board:
    return board_of("./checkpoints", Machine(tmp_path, environ), provider)


def test_tensorboard_has_an_address_everywhere(tmp_path: Path) -> None:
    pod = board(tmp_path, on("runpod", RUNPOD_POD_ID="abc"))
    assert pod.url == "https://abc-6006.proxy.runpod.net" and "--bind_all" in pod.command
    open_port = on("vast", PUBLIC_IPADDR="203.0.113.7", VAST_TCP_PORT_6006="46006")
    assert board(tmp_path, open_port).url == "http://203.0.113.7:46006"
    closed = board(tmp_path, on("vast", PUBLIC_IPADDR="203.0.113.7", VAST_TCP_PORT_22="40022"))
    assert closed.tunnel == "ssh -p 40022 -L 6006:localhost:6006 root@203.0.113.7"
    assert "--bind_all" not in closed.command
    ssh = {"USER": "ubuntu", "SSH_CONNECTION": "198.51.100.2 5555 192.0.2.9 22"}
    away = board(tmp_path, on("lambda"), **ssh)
    assert away.tunnel == "ssh -L 6006:localhost:6006 ubuntu@192.0.2.9"
    assert "%tensorboard --logdir ./checkpoints" in board(tmp_path, on("colab")).command
    assert board(tmp_path, on("linux")).url == "http://localhost:6006"
