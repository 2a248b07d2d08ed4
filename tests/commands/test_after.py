"""Options about the machine: what follows a run happens only after a good end."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlwm.commands.shared.after import After
from vlwm.core.errors import MachineError


def test_a_command_follows_a_good_end_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "done"
    after = After(None, f"touch {mark}", False)
    with pytest.raises(KeyError), after.around(tmp_path):
        raise KeyError
    assert not mark.exists()
    monkeypatch.setenv("RANK", "1")
    with after.around(tmp_path):
        pass
    assert not mark.exists()
    monkeypatch.setenv("RANK", "0")
    with after.around(tmp_path):
        pass
    assert mark.exists()
    with (
        pytest.raises(MachineError, match="the command of --when-done ended with 3"),
        After(None, "exit 3", False).around(tmp_path),
    ):
        pass


def test_a_blank_machine_fetches_its_run_once(tmp_path: Path) -> None:
    run, url = tmp_path / "run", (tmp_path / "safe").as_uri()
    run.mkdir()
    (run / "last.pth").write_text("x")
    with After(url, None, False).around(run):
        pass
    After(url, None, False).fetch(tmp_path / "again")
    assert (tmp_path / "again/last.pth").read_text() == "x"
    (tmp_path / "again/last.pth").write_text("newer")
    After(url, None, False).fetch(tmp_path / "again")
    assert (tmp_path / "again/last.pth").read_text() == "newer"
