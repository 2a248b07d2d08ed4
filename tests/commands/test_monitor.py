"""`vlwm monitor` from the command line."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests import fake_run
from vlwm.commands.monitor import monitor
from vlwm.core.errors import DataError
from vlwm.core.monitoring.screens.find import find_runs
from vlwm.core.store.objects import open_store
from vlwm.core.store.progress import session_name

app = typer.Typer()
app.command()(monitor)


def test_json_is_one_object(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=100)
    done = CliRunner().invoke(app, [str(folder.path), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["stage"] == "world" and found["metrics"]["step"] == 100
    assert found["machine"]["disk_free_bytes"] > 0


def test_once_prints_one_picture(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=100)
    done = CliRunner().invoke(app, [str(folder.path), "--once", "--ascii"])
    assert done.exit_code == 0 and done.stdout.count("heartbeat") == 1
    assert "world model" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("there", [True, False])
def test_no_run_is_one_sentence(tmp_path: Path, there: bool) -> None:
    path = tmp_path if there else tmp_path / "nothing"
    done = CliRunner().invoke(app, [str(path), "--once"])
    assert isinstance(done.exception, DataError) and done.exception.exit_code == 4
    expected = "contains no run" if there else "does not exist"
    assert expected in str(done.exception) and "--wait" in str(done.exception)


def test_waiting_for_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    late = threading.Timer(0.3, fake_run.write_run, (path, 20))
    late.start()
    done = CliRunner().invoke(app, [str(path), "--json", "--wait"])
    late.join()
    assert done.exit_code == 0 and "waiting for a run" in done.stderr
    json.loads(done.stdout)


def test_a_pipe_gets_lines(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", steps=20, state="done", phase="done")
    done = CliRunner().invoke(app, [str(folder.path)])
    assert done.exit_code == 0
    assert "  done" in done.stdout and "next: vlwm eval" in done.stdout


def test_a_store_tells_what_is_done_and_what_is_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    done = CliRunner().invoke(app, [store.url])
    assert isinstance(done.exception, DataError) and "nobody has prepared" in str(done.exception)
    plan = {"sessions": 9, "agents": ["drone"], "city": "Niiza"}
    store.write("prepare.json", json.dumps(plan).encode())
    names = [session_name("drone", index) for index in range(9)]
    store.write(f"{names[0]}.shard", b"12345")
    line = CliRunner().invoke(app, [store.url, "--once"]).stdout
    assert line.startswith("Niiza: 1 of 9 sessions, ")
    assert f"missing: {', '.join(names[1:6])} and 3 more (--json names all)" in line
    assert json.loads(CliRunner().invoke(app, [store.url, "--json"]).stdout)["missing"] == names[1:]
    for name in names:
        store.write(f"{name}.shard", b"12345")
    store.write("splits.json", b"{}")
    line = CliRunner().invoke(app, [store.url]).stdout  # ends by itself
    assert line.startswith("Niiza: 9 of 9 sessions, ") and line.endswith("finished\n")


def test_a_folder_of_runs_shows_the_newest_and_lists_all(tmp_path: Path) -> None:
    for name in ("first", "second"):
        fake_run.write_run(tmp_path / name, steps=20)
    done = CliRunner().invoke(app, [str(tmp_path), "--json"])
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["run"] in {str(tmp_path / n) for n in ("first", "second")}
    assert {run.path.name for run in find_runs([tmp_path])} == {"first", "second"}
