"""Each line of the checklist, in good and bad weather."""

from __future__ import annotations

import errno
import http.server
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import fake_machine as fake
from vlwm.core.cloud import place_checks
from vlwm.core.cloud.check import Check
from vlwm.core.cloud.gpu_checks import gpu_check, torch_check
from vlwm.core.cloud.host_checks import cpu_check, pids_check, ram_check, shm_check
from vlwm.core.cloud.place_checks import (
    Reached,
    clock_check,
    disk_check,
    network_check,
    reach,
    storage_check,
    write_check,
)
from vlwm.core.cloud.provider import Provider
from vlwm.core.cloud.software_checks import (
    completion_check,
    hub_check,
    parts_check,
    python_check,
    session_check,
    tools_check,
    wandb_check,
)
from vlwm.core.hardware.advice import GIB, advise
from vlwm.core.hardware.gpu import Gpu, GpuReport
from vlwm.core.hardware.host import Host
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import DiskSpace
from vlwm.core.hardware.torch_build import TorchBuild, ask_torch, least_driver, runs_on

LINUX, VAST = Provider("linux", "", ""), Provider("vast", "", "")
CARD = Gpu(0, "NVIDIA A100-SXM4-40GB", "GPU-1", 40 * GIB, 39 * GIB, capability=(8, 0))
ARCH = ("sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_100")
BUILD = TorchBuild("2.9.1+cu128", "12.8", ARCH, True)
HERE = Machine(Path("/nowhere"), {})


def is_(check: Check, status: str, *words: str) -> None:
    assert check.status == status, check
    for word in words:
        assert word in f"{check.detail} -> {check.fix}", check
    assert status == "ok" or check.fix


def report(*gpus: Gpu, driver: str = "570.124.06", **more: Any) -> GpuReport:
    return GpuReport(gpus, driver, (12, 8), **more)


def test_gpu() -> None:
    is_(gpu_check(report(CARD), HERE, LINUX), "ok", "A100-SXM4-40GB, 39.0 of 40.0 GiB free, SM 8.0",
        "570.124.06 (CUDA 12.8)")  # fmt: skip
    is_(gpu_check(report(CARD, CARD), HERE, LINUX), "ok", "first of 2")
    held = Gpu(0, "NVIDIA GeForce RTX 4090", None, 24 * GIB, 18 * GIB)
    is_(gpu_check(report(held), HERE, LINUX), "warn", "6.0 GiB are held", "nvidia-smi")
    hidden = Machine(Path("/nowhere"), {"CUDA_VISIBLE_DEVICES": ""})
    is_(gpu_check(report(CARD), hidden, LINUX), "warn", "hides them", "unset CUDA_VISIBLE_DEVICES")


def test_no_gpu(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {})
    none = GpuReport(code="no-library", reason="no library")
    is_(gpu_check(none, machine, LINUX), "warn", "no library", "test_local")
    bus = "/sys/bus/pci/devices/0000:01:00.0"
    box = fake.FakeMachine(tmp_path)
    box.write({f"{bus}/vendor": "0x10de", f"{bus}/class": "0x030000"})
    is_(gpu_check(none, machine, LINUX), "fail", "on the bus", "install the driver")
    box.write({"/proc/driver/nvidia/version": "NVRM version: x  535.183.01  Sun"})
    is_(gpu_check(none, machine, VAST), "fail", "kernel module is loaded", "--gpus all")
    clash = GpuReport(code="mismatch", reason="they differ in version")
    is_(gpu_check(clash, machine, VAST), "fail", "535.183.01", "restart the instance")
    is_(gpu_check(clash, machine, LINUX), "fail", "sudo reboot")
    is_(gpu_check(GpuReport(code="no-module", reason="x"), machine, LINUX), "fail", "nvidia-ml-py")
    is_(gpu_check(GpuReport(code="failed", reason="x"), machine, LINUX), "fail", "nvidia-smi")


def test_torch_against_driver_and_gpu() -> None:
    is_(torch_check(BUILD, report(CARD), HERE), "ok", "2.9.1+cu128, CUDA 12.8, kernels for SM 8.0")
    cpu = TorchBuild("2.9.1+cpu")
    is_(torch_check(cpu, report(), HERE), "ok", "built for the CPU")
    is_(torch_check(cpu, report(CARD), HERE), "fail", "CPU alone", "whl/cu128")
    newer = TorchBuild("2.10.0", "13.0", ARCH, False)
    is_(torch_check(newer, report(CARD, driver="550.9"), HERE), "fail", "needs driver r580",
        "whl/cu126")  # fmt: skip
    is_(torch_check(BUILD, report(CARD, driver="470.1"), HERE), "fail", "r525", "whl/cu118")
    blackwell = Gpu(0, capability=(12, 0))
    old = TorchBuild("2.6.0", "12.4", ("sm_80", "sm_90"), True)
    is_(torch_check(old, report(blackwell, driver="580.1"), HERE), "fail", "SM 12.0", "whl/cu130")
    pascal = Gpu(0, capability=(6, 1))
    is_(torch_check(BUILD, report(pascal), HERE), "fail", "SM 6.1", "whl/cu126")
    dead = TorchBuild("2.9.1", "12.8", ARCH, False, "unknown error")
    is_(torch_check(dead, report(CARD), HERE), "fail", "does not reach the GPU: unknown error")
    is_(torch_check(TorchBuild("2.5.1"), report(), HERE), "fail", "2.6", "--upgrade")
    is_(torch_check(TorchBuild(error="not importable"), report(), HERE), "fail", "not importable")


@pytest.mark.parametrize(
    ("capability", "good"),
    [((8, 0), True), ((8, 9), True), ((7, 0), False), ((9, 0), True), ((12, 0), True),
     ((7, 5), True), ((6, 1), False), ((10, 3), True)],
)  # fmt: skip
def test_kernels_for_a_generation(capability: tuple[int, int], good: bool) -> None:
    assert runs_on(BUILD, capability) == good


def test_an_exact_architecture_fits_only_itself() -> None:
    hopper = TorchBuild(arch=("sm_90a",))
    assert runs_on(hopper, (9, 0)) and not runs_on(hopper, (10, 0))
    assert [least_driver(v) for v in ("11.8", "12.4", "13.0", "14.1")] == [450, 525, 580, 580]


def test_torch_is_asked_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = fake.torch_stub(tmp_path / "a", available=False)
    monkeypatch.setenv("PYTHONPATH", str(stub))
    build = ask_torch()
    assert (build.version, build.cuda, build.available) == ("2.9.1+cu128", "12.8", False)
    assert "sm_80" in build.arch and build.error == "the driver on your system is too old"
    (stub / "torch/__init__.py").write_text("import os; os._exit(139)")
    assert "ended the process (exit code 139)" in (ask_torch().error or "")
    (stub / "torch/__init__.py").write_text("import a_part_that_is_missing")
    assert "a_part_that_is_missing" in (ask_torch().error or "")


def host(
    cpus: float = 16, ram: float = 64, shm: float | None = 16, pids: int | None = None
) -> Host:
    return Host(64, cpus, int(ram * GIB), None, 0, None if shm is None else int(shm * GIB), pids,
                True)  # fmt: skip


def test_host() -> None:
    gpu = advise((CARD,), host())
    is_(cpu_check(host(46), gpu), "ok", "46 of 64 processors are granted")
    is_(cpu_check(host(2), gpu), "warn", "2 of 64")
    is_(cpu_check(host(2), advise((), host(2))), "ok")
    is_(ram_check(host()), "ok", "64.0 GiB")
    is_(ram_check(host(ram=6)), "warn")
    is_(ram_check(host(ram=2)), "fail")
    is_(pids_check(host(pids=100)), "warn", "--workers 0")
    is_(pids_check(host(pids=9999)), "ok")
    is_(shm_check(host(), gpu), "ok", "16.0 GiB")
    small = host(shm=1 / 16)
    is_(shm_check(small, advise((CARD,), small)), "warn", "64 MiB", "--shm-size", "--workers 1")
    is_(shm_check(host(shm=None), gpu), "warn", "--workers 0")


def test_storage_names_a_better_folder(tmp_path: Path) -> None:
    rows = (("/", "overlay", "o", ""), ("/workspace", "nfs4", "s:/", ""))
    box = fake.FakeMachine(tmp_path).write({"/proc/self/mountinfo": fake.mountinfo(*rows)})
    (tmp_path / "workspace").mkdir()
    machine, runpod = Machine(box.root, {}), Provider("runpod", "", "")
    check = storage_check(Path("/root/checkpoints"), machine, runpod)
    is_(check, "warn", "lost when the pod stops", "cd /workspace/vlwm")
    assert check.repair == (("mkdir", "-p", str(tmp_path / "workspace/vlwm")),)
    good = storage_check(Path("/workspace/run"), machine, runpod)
    is_(good, "ok", "network volume")
    alone = storage_check(Path("/root/x"), Machine(tmp_path / "empty", {}), VAST)
    is_(alone, "warn", "save results elsewhere")


@pytest.mark.parametrize(("free_gb", "status"), [(100, "ok"), (15, "warn"), (2, "fail")])
def test_disk_against_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, status: str
) -> None:
    space = DiskSpace(10**12, free_gb * 10**9)
    monkeypatch.setattr(place_checks, "disk_space", lambda path, machine: space)
    check = disk_check(tmp_path / "data", tmp_path / "run", Machine())
    is_(check, status, f"{free_gb} GB free, 22 GB needed")


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EDQUOT, "over quota"), (errno.ENOSPC, "full"), (errno.EROFS, "read-only"),
     (errno.EACCES, "Permission denied")],
)  # fmt: skip
def test_a_probe_finds_what_free_bytes_hide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(code, "Permission denied")

    monkeypatch.setattr(place_checks, "_write", refuse)
    is_(write_check(tmp_path / "run", Machine(), probe=True), "fail", words)
    assert list(tmp_path.iterdir()) == []


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    check = write_check(tmp_path / "a/b", Machine(), probe=True)
    assert check.status in ("ok", "warn") and "MB/s" in check.detail
    is_(write_check(tmp_path / "a/b", Machine(), probe=False), "ok", "not tried")
    assert list(tmp_path.iterdir()) == []


class _Answers(http.server.BaseHTTPRequestHandler):
    dates: ClassVar[dict[str, str]] = {"/late": "Thu, 01 Jan 2015 00:00:00 GMT"}

    def do_HEAD(self) -> None:
        self.send_response_only(403)
        self.send_header("Date", self.dates.get(self.path, self.date_time_string()))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_hosts_are_asked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    top = f"http://127.0.0.1:{server.server_port}"
    try:
        found = reach((("a", f"{top}/"), ("b", f"{top}/late"), ("c", "http://127.0.0.1:9/")))
    finally:
        server.shutdown()
        server.server_close()
    assert [one.good for one in found] == [True, True, False]
    assert abs(found[0].clock_ahead_s or 0) < 5 and (found[1].clock_ahead_s or 0) > 1e8
    is_(network_check(found), "warn", "no answer from c")
    is_(network_check(found[:1]), "ok")
    is_(network_check(None), "ok", "--offline")
    is_(clock_check(found), "ok")
    is_(clock_check([Reached("a", True, -7200.0)]), "warn", "-120 minutes off")


def test_a_clock_that_is_years_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    is_(clock_check(None), "ok")
    monkeypatch.setattr(time, "time", lambda: 1.0e9)
    is_(clock_check(None), "warn", "years behind")


def test_python_and_its_parts() -> None:
    is_(python_check((3, 11, 7)), "ok", "3.11.7")
    is_(python_check((3, 8, 0)), "fail", "3.10")
    is_(parts_check(["typer>=0.12", "rich"]), "ok", "all 2")
    check = parts_check(["rich", "no-such-part-of-ours>=1.2"])
    is_(check, "fail", "missing: no-such-part-of-ours", "pip install 'no-such-part-of-ours>=1.2'")
    assert check.repair[0][1:] == ("-m", "pip", "install", "no-such-part-of-ours>=1.2")
    assert parts_check().status == "ok"


def tools(root: Path, *names: str) -> Machine:
    for name in names:
        path = root / "usr/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return Machine(root, {"PATH": "/usr/bin:/bin"})


def test_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_(
        tools_check(tools(tmp_path / "a", "screen", "git", "unzip", "rsync")),
        "ok",
        "screen git unzip",
    )
    bare = tools_check(tools(tmp_path / "b", "git"))
    is_(bare, "warn", "screen, tmux, unzip, rsync", "apt-get install -y")
    assert bare.repair == ()  # no apt there
    apt = tools(tmp_path / "c", "git", "unzip", "rsync", "apt-get", "sudo")
    assert tools_check(apt).repair == ()  # another machine is never mended from here
    monkeypatch.setattr(Machine, "real", True)
    ready = tools_check(apt)
    assert ready.repair[1][-2:] == ("screen", "tmux") and len(ready.repair) == 2


def test_sessions_and_logins(tmp_path: Path) -> None:
    def at(**environ: str) -> Machine:
        return Machine(tmp_path, {"HOME": "/root", **environ})

    is_(session_check(at(SSH_CONNECTION="a 1 b 2")), "warn", "screen -S training")
    is_(session_check(at(SSH_CONNECTION="a 1 b 2", STY="1.x")), "ok")
    is_(wandb_check(at()), "ok", "wandb login")
    is_(wandb_check(at(WANDB_API_KEY="sesame")), "ok", "logged in")
    is_(hub_check(at(), "/data"), "ok", "hf auth login", "export HF_HOME=/data/hf")
    is_(hub_check(at(HF_HOME="/data/hf", HF_TOKEN="sesame"), "/data"), "ok", "logged in")
    bare = completion_check(at(SHELL="/bin/bash"))
    is_(bare, "warn", "vlwm --install-completion")
    assert bare.repair == ()
    is_(completion_check(at()), "ok")
    box = fake.FakeMachine(tmp_path)
    box.write({"/root/.netrc": "machine api.wandb.ai\n  login user\n  password sesame\n",
               "/root/.cache/huggingface/token": "sesame",
               "/root/.bash_completions/vlwm.sh": ""})  # fmt: skip
    is_(wandb_check(at()), "ok", "logged in")
    is_(hub_check(at(), None), "ok", "logged in")
    is_(completion_check(at(SHELL="/bin/bash")), "ok")
