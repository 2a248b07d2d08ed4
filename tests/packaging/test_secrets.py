"""No secret of the environment or of an address is printed, logged or written down.

`vlwm setup` has its own test on a fake machine (tests/commands/test_setup.py); training is looked
through in tests/core/training/test_run.py, whose processes have these secrets in their environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.http_site import Behaviour
from vlwm.cli import app
from vlwm.core.config.schema import Config
from vlwm.core.fetch import download
from vlwm.core.fetch.answers import without_secrets
from vlwm.core.fetch.transfer import Policy, Transfer
from vlwm.core.run_folder import RunFolder

SECRETS = {
    "WANDB_API_KEY": "5e5a3e" + "0" * 34, "HF_TOKEN": "hf_sesame1",
    "HUGGING_FACE_HUB_TOKEN": "hf_sesame2", "AWS_SECRET_ACCESS_KEY": "sesame3",
    "AWS_SESSION_TOKEN": "sesame4", "RUNPOD_API_KEY": "sesame5", "NETRC_PASSWORD": "sesame6",
}  # fmt: skip
WORDS = ("sesame", "5e5a3e")


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def assert_silent(*texts: str) -> None:
    for text in texts:
        assert not [word for word in WORDS if word in text.lower()], text


def assert_nothing_written(folder: Path, *inputs: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in inputs:
            found = [word for word in WORDS if word.encode() in path.read_bytes().lower()]
            assert not found, path


def vlwm(*words: str | Path) -> tuple[str, str]:
    """Everything a command says, and how it ends."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.stdout + result.stderr, str(result.exception or "")


@pytest.mark.parametrize("fault", ["none", "status", "cut", "html", "redirect"])
@pytest.mark.usefixtures("hidden")
def test_download_keeps_logins_and_signatures_to_itself(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A signed address with a login in it, from a list of links and from a catalogue."""
    quick = Policy(attempts=2, restarts=1, backoff_s=0.001, longest_pause_s=0.01, stall_s=0.5)
    monkeypatch.setattr(
        download, "Transfer", lambda *words, **more: Transfer(*words, **{**more, "policy": quick})
    )
    site.value_of_signature = "other"
    host = site.url.removeprefix("http://")
    signed = f"http://me:sesame7@{host}/part.bin?X-Amz-Signature=sesame8&token=sesame9"
    kinds = {
        "none": [], "status": [Behaviour("status", 403)], "html": [Behaviour("html")] * 9,
        "cut": [Behaviour("cut", 5000), *[Behaviour("cut")] * 9],
        "redirect": [Behaviour("redirect", 0, "/signed?s=sesame10")] * 9,
    }  # fmt: skip
    catalogue, links = tmp_path / "catalogue.json", tmp_path / "links.txt"
    form = {"name": "form", "group": "midair", "url": None, "file": "midair", "how": "a form"}
    fetched = {"name": "city", "group": "plateau", "url": signed, "file": "plateau/part.bin"}
    catalogue.write_text(json.dumps([form, fetched]))
    links.write_text(f"{signed}\n")
    base = ("--catalog", catalogue, "--data-dir", tmp_path / "data")
    for words in (
        ("--midair", "--links", links), ("--plateau",), ("--plateau", "--json"),
        ("--list",), ("--list", "--json"), ("--plateau", "--dry-run", "--json"),
    ):  # fmt: skip
        site.faults = list(kinds[fault])
        said, ended = vlwm("download", *words, *base)
        assert_silent(said, ended, caplog.text)
        fetches = not {"--list", "--dry-run"} & set(map(str, words))
        assert bool(ended) == (fetches and fault != "none"), ended
    assert_nothing_written(tmp_path, catalogue, links)
    assert (tmp_path / "data").exists()


def test_addresses_in_the_sentences_of_libraries_lose_their_secrets() -> None:
    told = "403 Client Error for url: https://u:sesame@cdn.x/a/b?Signature=sesame&Key-Pair-Id=1"
    assert without_secrets(told) == "403 Client Error for url: https://cdn.x/a/b"
    assert without_secrets("what? no address") == "what? no address"


@pytest.mark.usefixtures("hidden")
def test_an_offline_run_of_wandb_holds_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from vlwm.core.training.options import WandbOptions
    from vlwm.core.training.telemetry.wandb_sink import WandbSink

    monkeypatch.setenv("WANDB_MODE", "offline")
    sink = WandbSink(RunFolder(tmp_path), WandbOptions(), Config())
    sink.write({"stage": "world", "kind": "train", "time": 0.0, "step": 1, "train/loss": 0.5})
    sink.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert_silent(*capfd.readouterr())
    assert_nothing_written(tmp_path)
