"""Three processes as three machines on one store: one is killed, the others end the plan."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.store.object_store import ObjectStore
from vlwm.core.store.objects import open_store

pytestmark = [pytest.mark.ci, pytest.mark.timeout(3600)]
_PATIENCE_S = 1500.0
"""long enough for a machine that does much else"""
PLAN = ["--config", "test_local", "--frames", "12", "--sessions", "8", "--workers", "1", "--json"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a local S3 server; its address and keys are in the environment."""
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]' s3fs")
    pytest.importorskip("s3fs", reason="pip install s3fs")
    thread = server.ThreadedMotoServer(port=0)
    thread.start()
    host, port = thread.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        client.put_bucket_versioning(  # the server then remembers each PUT
            Bucket="bucket", VersioningConfiguration={"Status": "Enabled"}
        )
        yield "s3://bucket"
    thread.stop()
    assert host


def box(url: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "vlwm", "prepare", "--store", url, *PLAN]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        command, env=environment, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=(folder / "stderr").open("w"),
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, out
    return dict(json.loads(out))


def content(store: ObjectStore) -> dict[str, bytes | None]:
    return {name: store.read(name) for name in store.list()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    folder = tmp_path_factory.mktemp("alone")
    url = (folder / "store").as_uri()
    assert ended(box(url, folder / "box"))["finished"]
    return content(open_store(url))


def run_boxes(url: str, folder: Path, seed: int) -> list[dict[str, Any]]:
    """Three boxes, of which one is killed in the middle of its work; reports of the others."""
    store = open_store(url)
    boxes = [box(url, folder / f"box{i}") for i in range(3)]
    deadline = time.monotonic() + _PATIENCE_S
    while not any(n.endswith(".shard") for n in store.list()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(random.Random(seed).random())
    os.kill(boxes[seed % 3].pid, signal.SIGKILL)
    boxes.pop(seed % 3).communicate()
    return [ended(process) for process in boxes]


def shards_put(url: str) -> int:
    """Shards that were written to a bucket, each as often as it was written."""
    import boto3

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_object_versions")
    found = pages.paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return sum(v["Key"].endswith(".shard") for page in found for v in page.get("Versions", ()))


@pytest.mark.parametrize("seed", range(int(os.environ.get("VLWM_BOX_RUNS", "1"))))
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_of_three_boxes_end_the_plan_with_the_bytes_of_one(
    kind: str, seed: int, tmp_path: Path, alone: dict[str, bytes | None],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    url = f"{request.getfixturevalue('bucket')}/{kind}{seed}" if kind == "s3" else ""
    url = url or (tmp_path / "store").as_uri()
    reports = run_boxes(url, tmp_path, seed)
    assert content(open_store(url)) == alone
    assert any(report["finished"] for report in reports)
    twice = [report["twice"] for report in reports]
    beyond = sum(twice) + (shards_put(url) - 8 if kind == "s3" else 0)
    print(
        kind, seed, "made", [r["made"] for r in reports], "twice", twice, "beyond the plan", beyond,
        "load", os.getloadavg()[0], flush=True,
    )  # fmt: skip
    assert sum(twice) <= 3 and not any(report["different"] for report in reports)
    assert beyond < 8  # less than the whole plan a second time


def test_a_machine_without_data_trains_on_a_bucket(
    bucket: str, tmp_path: Path, alone: dict[str, bytes | None]
) -> None:
    """`vlwm download s3://…` and `vlwm train --data s3://… --dry-run` after a fetch."""
    store = open_store(f"{bucket}/train")
    for name, raw in alone.items():
        store.write(name, raw or b"")
    command = [sys.executable, "-m", "vlwm", "download", store.url, "--data-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {p.name for p in (tmp_path / "train").iterdir()} >= set(alone)
    listed = open_store((tmp_path / "train").as_uri())
    assert {n: r for n, r in content(listed).items() if n in alone} == alone
