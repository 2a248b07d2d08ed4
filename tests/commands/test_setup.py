"""`vlwm setup` on whole fake machines: files, environment, driver library, torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import fake_machine as fake

ROOT = Path(__file__).parents[2]
COMMAND = (
    "import sys, typer; from vlwm.commands.setup import setup; "
    "from vlwm.core.errors import VlwmError; app = typer.Typer(); app.command()(setup)\n"
    "try: app()\n"
    "except VlwmError as e: print(e, file=sys.stderr); sys.exit(e.exit_code)"
)
SECRETS = {
    "CONTAINER_API_KEY": "sesame-1", "RUNPOD_API_KEY": "sesame-2", "JUPYTER_TOKEN": "sesame-3",
    "WANDB_API_KEY": "sesame-4", "HF_TOKEN": "sesame-5", "AWS_SECRET_ACCESS_KEY": "sesame-6",
    "https_proxy": "http://me:sesame-7@127.0.0.1:9", "http_proxy": "http://me:sesame-7@127.0.0.1:9",
}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.build_nvml(tmp_path_factory.mktemp("nvml"))


@dataclass
class Rented:
    """A machine to run `vlwm setup` on."""

    box: fake.FakeMachine
    library: Path | None
    gpus: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    def setup(self, *words: str) -> subprocess.CompletedProcess[str]:
        stub = str(self.box.root / "stub")
        path = f"{stub}:{ROOT}"
        environ = fake.shell(self.library, self.gpus, PYTHONPATH=path) | {
            "PATH": "/usr/bin", "HOME": "/root", "SHELL": "/bin/dash", "LANG": "C.UTF-8",
            **self.environ,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-c", COMMAND, "--root", str(self.box.root), *words],
            env=environ, cwd=self.box.root, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def json(self, *words: str) -> dict[str, Any]:
        done = self.setup("--json", "--offline", *words)
        assert done.returncode in (0, 3), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["fit"] == (done.returncode == 0)
        return found


@pytest.fixture
def rented(tmp_path: Path, library: Path) -> Rented:
    """A Vast.ai box with a volume, shell variables hidden in its first process."""
    box = fake.plain_machine(tmp_path / "box", cpus=32, ram_gib=128)
    (box.root / "data").mkdir()
    fake.torch_stub(box.root / "stub")
    box.write(
        {
            "/proc/1/environ": "VAST_CONTAINERLABEL=C.4711\0PUBLIC_IPADDR=203.0.113.7\0"
            "VAST_TCP_PORT_22=40022\0",
            "/proc/self/mountinfo": fake.mountinfo(
                *fake.CONTAINER_MOUNTS, ("/data", "ext4", "/dev/nvme1", "")
            ),
            **{f"/usr/bin/{tool}": "" for tool in ("screen", "git", "unzip")},
        }
    )
    for tool in ("screen", "git", "unzip"):
        (box.root / "usr/bin" / tool).chmod(0o755)
    return Rented(box, library)


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in found["checks"]}


@pytest.mark.parametrize(
    ("gpus", "batch", "precision", "checkpointing", "hours"),
    [
        (fake.A100_80, 8, "bf16", False, 8.0),
        (fake.A100_40, 3, "bf16", False, 12.0),
        (fake.RTX_4090, 2, "bf16", False, 20.0),
        (fake.RTX_4090_DESKTOP, 1, "bf16", False, 20.0),
        (fake.RTX_3090, 2, "bf16", False, 24.0),
        (fake.RTX_3080, 1, "bf16", True, 48.0),
        (fake.T4, 1, "fp16", False, 48.0),
        (fake.MIG, 1, "bf16", False, 48.0),
        (fake.A100_80 + "|" + fake.A100_80, 8, "bf16", False, 8.0),
    ],
    ids=["A100-80", "A100-40", "4090", "4090-desktop", "3090", "3080", "T4", "MIG", "two"],
)
def test_every_card_gets_its_row_of_the_table(
    rented: Rented, gpus: str, batch: int, precision: str, checkpointing: bool, hours: float
) -> None:
    rented.gpus = gpus
    found = rented.json("--work-dir", "/data/run")
    advice = found["advice"]
    assert (advice["batch_size"], advice["precision"]) == (batch, precision)
    assert (advice["checkpoint_activations"], advice["hours"]) == (checkpointing, hours)
    assert found["fit"] and found["provider"] == "vast" and found["instance"] == "C.4711"
    assert statuses(found)["torch"] == "ok" and statuses(found)["storage"] == "ok"
    assert advice["gpus"] == (2 if "|" in gpus else 1)
    assert advice["tensorboard"]["tunnel"].startswith("ssh -p 40022 -L 6006")


def test_without_a_gpu_the_cpu_is_fit(rented: Rented) -> None:
    rented.library = None
    found = rented.json()
    assert found["fit"] and found["advice"]["device"] == "cpu"
    assert statuses(found)["gpu"] == "warn"


def test_a_driver_mismatch_is_not_fit(rented: Rented) -> None:
    rented.environ["FAKE_NVML"] = "18"
    found = rented.json()
    gpu = next(check for check in found["checks"] if check["name"] == "gpu")
    assert not found["fit"] and gpu["status"] == "fail"
    assert "differ in version" in gpu["detail"] and "restart the instance" in gpu["fix"]


def test_a_driver_too_old_for_torch_is_not_fit(rented: Rented) -> None:
    rented.gpus, rented.environ["FAKE_DRIVER"] = fake.RTX_4090, "470.82.01"
    check = next(c for c in rented.json()["checks"] if c["name"] == "torch")
    assert check["status"] == "fail" and "r525" in check["detail"]


def test_the_checklist_for_people(rented: Rented) -> None:
    rented.gpus = fake.RTX_4090
    done = rented.setup("--offline", "--work-dir", "/workspace/run")
    assert done.returncode == 0, done.stderr
    for words in (
        "Vast.ai · C.4711", "detected from VAST_CONTAINERLABEL", "✔ gpu",
        "GeForce RTX 4090, 23.5 of 24.0 GiB free, SM 8.9, driver 570.124.06 (CUDA 12.8)",
        "▲ storage", "gone when the instance is destroyed", "cd /data/vlwm", "✔ cpu", "✔ packages",
        "batch 2, bf16, 8 loader workers, about 20 h for 50 epochs (RTX 4090)",
        "ssh -p 40022 -L 6006:localhost:6006", "vlwm download && vlwm prepare && vlwm train",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert "--gpu-ids" not in done.stdout
    rented.environ["LC_ALL"] = "C"
    rented.gpus = f"{fake.A100_80}|{fake.A100_80}"
    plain = rented.setup("--offline").stdout
    assert "vlwm train --auto --gpu-ids 0,1" in plain
    assert plain.isascii() and "ok   gpu" in plain and "warn storage" in plain


def test_it_speaks_while_it_works_and_counts_at_the_end(rented: Rented) -> None:
    """A command to type is one line, however long; a fix shows what it changed, not all again."""
    rented.gpus = fake.RTX_4090
    done = rented.setup("--offline", "--work-dir", "/workspace/run", "--fix", "--yes")
    assert done.stderr.startswith("checking this machine (a few seconds) ...")
    counts = re.findall(r"^(\d+) ok, (\d+) warnings?, (\d+) failed$", done.stdout, re.M)
    assert len(counts) == 2 and all(int(passed) > 10 for passed, _, _ in counts)
    assert done.stdout.count("✔ cpu") == 1 and max(map(len, done.stdout.splitlines())) < 200
    (following,) = [line for line in done.stdout.splitlines() if line.startswith("next: ")]
    assert "vlwm train --auto" in following


def test_fix_makes_the_folder_that_lasts(rented: Rented) -> None:
    target = rented.box.root / "data/vlwm"
    words = ("--offline", "--work-dir", "/workspace/run", "--fix")
    told = rented.setup(*words, "--dry-run")
    assert f"--fix would run: mkdir -p {target}" in told.stderr and not target.exists()
    assert "not tried" in told.stdout and not list(rented.box.root.glob("**/.vlwm-probe*"))
    done = rented.setup(*words, "--yes")
    assert f"$ mkdir -p {target}" in done.stderr and target.is_dir()
    assert "Nothing to fix automatically" in rented.setup(*words, "--yes").stderr


def test_fix_asks_and_json_cannot(rented: Rented) -> None:
    done = rented.setup("--offline", "--fix", "--json")
    assert done.returncode == 2 and "--yes" in done.stderr and done.stdout == ""
    asked = rented.setup("--offline", "--fix", "--work-dir", "/workspace/run")
    assert "Run mkdir -p" in asked.stderr  # and nobody answers
    assert not (rented.box.root / "data/vlwm").exists()


def test_no_secret_is_ever_printed(rented: Rented) -> None:
    hidden = "\0".join(f"{k}={v}" for k, v in SECRETS.items())
    exports = "".join(f'export {k}="{v}"\n' for k, v in SECRETS.items())
    first = (rented.box.root / "proc/1/environ").read_text()
    rented.box.write(
        {
            "/proc/1/environ": first + hidden,
            "/etc/environment": exports,
            "/etc/rp_environment": exports,
            "/root/.netrc": "machine api.wandb.ai login u password sesame-8\n",
            "/root/.cache/huggingface/token": "sesame-9",
        }
    )
    rented.gpus, rented.environ = fake.A100_40, dict(SECRETS)
    for words in ((), ("--json",), ("--dry-run", "--fix"), ("--fix", "--yes", "--json")):
        done = rented.setup(*words)
        assert done.returncode == 0, done.stderr
        assert "sesame" not in done.stdout + done.stderr
    left = [p for p in rented.box.root.rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]
    assert {p.name for p in left} == {"environ", "environment", "rp_environment", ".netrc", "token"}
