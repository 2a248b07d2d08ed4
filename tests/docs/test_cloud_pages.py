"""The pages about rented machines: every vlwm command in them exists as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from vlwm.cli import app
from vlwm.core.cloud.software_checks import _SCREENS, _TOOLS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["vastai_deployment.md", "lambda_cloud_deployment.md", "runpod_deployment.md"]


def commands(page: str) -> list[list[str]]:
    """Words of each vlwm command in the page's shell blocks."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [part.strip() for b in blocks for line in b.splitlines() for part in line.split("&&")]
    return [shlex.split(line)[1:] for line in lines if line.startswith("vlwm ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_as_written(page: str) -> None:
    group = typer.main.get_command(app)
    found = commands(page)
    assert {words[0] for words in found} >= {"setup", "download", "prepare", "train"}
    for name, *words in found:
        command = group.commands[name]
        known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= known, (name, words)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_answers_the_operators_questions(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for heading in ("## Rent", "## Start", "## Train", "## Interruption", "## Bring results home"):
        assert heading in text, heading
    for word in ("screen -S training", "6006", "--resume", "scp ", "best.pth"):
        assert word in text, word


@pytest.mark.parametrize("page", PAGES)
def test_every_page_counts_disk_time_and_what_is_downloaded_twice(page: str) -> None:
    """What the environment takes, which torch an older driver needs, what the hours leave out."""
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert "environment takes about 2 GB with CPU wheels and several GB more with CUDA" in text
    assert "--index-url https://download.pytorch.org/whl/cu128" in text
    assert "the predecessor's numbers" in text and "vlwm setup` prints the row" in text
    assert "Stage 1, the tokenizer, comes on top, and `--epochs` does not count it" in text
    assert "--price" in text


@pytest.mark.parametrize("page", PAGES)
def test_setup_looks_for_the_tools_that_a_page_uses(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for tool in ("rsync", "screen", "git"):
        assert f"{tool} " not in text or tool in _SCREENS + _TOOLS, tool
