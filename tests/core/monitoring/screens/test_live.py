"""The live view of `train`: in a real terminal, below what is printed, without a second screen."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from tests.core.monitoring.test_dashboard import ROOT, terminal

PROGRAM = """
import logging, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests import fake_run
from vlwm.commands.shared.live import live_view
from vlwm.core.signals import say
run = Path(sys.argv[1])
with live_view(run, drawn=True):
    print("printed before")
    folder = fake_run.write_run(run, steps=200, eta_run_s=7200.0, price_per_h=0.63,
        plan=[dict(name="tokenizer", label="stage 1", state="done", share=1, seconds=100),
              dict(name="world", label="stage 2", state="now", share=0.24, seconds=9000),
              dict(name="eval", label="test", state="todo", share=0, seconds=60)])
    time.sleep(1.5)
    logging.getLogger("vlwm.training").warning("loss spike")
    time.sleep(0.7)
    say("stopping: writing a checkpoint")  # as the answer to Ctrl-C, from another thread
    time.sleep(0.7)
    folder.write_status(fake_run.status(folder, state="done", phase="done", exit_code=0))
print("the score table")
"""


def test_the_last_picture_and_the_table_stay_in_the_scrollback(tmp_path: Path) -> None:
    code = PROGRAM.format(root=str(ROOT))
    command = shlex.join([sys.executable, "-c", code, str(tmp_path / "run")])
    with terminal(tmp_path, command) as window:
        text = window.until(lambda t: "stage 2 24%" in t)
        assert "cost $" in text and "end of the run in" in text
        # whenever one looks, there is one picture and nothing torn
        while "LEFT 0" not in text:
            text = window.screen()
            assert text.count("vlwm /") <= 1 and text.count("╭─ loss") <= 1
            time.sleep(0.03)
        text = window.run("capture-pane", "-p", "-S", "-200")
    assert text.count("printed before") == 1 and "loss spike" in text
    assert text.count("stopping: writing") == 1
    assert (
        text.index("loss spike")
        < text.index("stopping: writing")
        < text.index("✔ done")
        < text.index("the score table")
    )
    assert text.count("world model") <= 2  # one picture, not one for each time it was drawn
