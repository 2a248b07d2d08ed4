"""Keep the dashboard's state between keys: which run, which screen. Pure, so keys can be tested."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlwm.core.vocabulary import Stage

MAIN, HELP, LOG, RUNS, ZOOM = "main", "help", "log", "runs", "zoom"
COMPARE, LINKS = "compare", "links"
_PAGES = {"?": HELP, "l": LOG, "r": RUNS, "c": COMPARE, "w": LINKS}
_SCROLLED = (HELP, LOG)
CHARTS = ("train/loss", "pred/mean", "val/iou", "loss/occupancy", "grad_norm", "lr")
"""metrics that `z` steps through"""


@dataclass(frozen=True)
class View:
    """State of the dashboard's view.

    Attributes:
        screen: one of the names above.
        run: number of the run in the list.
        stage: stage chosen with `s`; None follows the run.
        paused: the picture is not updated.
        chart: number in `CHARTS`.
        pattern: the log's filter.
        typing: keys go into the filter.
        scroll: lines by which help or log is scrolled.
        left: somebody pressed q.
    """

    screen: str = MAIN
    run: int = 0
    stage: str | None = None
    paused: bool = False
    chart: int = 0
    pattern: str = ""
    typing: bool = False
    scroll: int = 0
    left: bool = False

    def pressed(self, key: str, runs: int) -> View:
        """Return the view after a key; `runs` is the length of the list."""
        if self.typing:
            return self._typed(key)
        if key == "q":
            return replace(self, left=True)
        if key == "escape":
            return replace(self, screen=MAIN, pattern="")
        if key == "p":
            return replace(self, paused=not self.paused)
        if key == "/":
            return replace(self, screen=LOG, typing=True, pattern="", scroll=0)
        if key == "z":
            chart = (self.chart + 1) % len(CHARTS) if self.screen == ZOOM else self.chart
            return replace(self, screen=ZOOM, chart=chart)
        if key == "s":
            order: dict[str | None, str | None] = {
                None: Stage.TOKENIZER,
                Stage.TOKENIZER: Stage.WORLD,
                Stage.WORLD: None,
            }
            return replace(self, stage=order[self.stage])
        if key in _PAGES:
            wanted = _PAGES[key]
            return replace(self, screen=MAIN if self.screen == wanted else wanted, scroll=0)
        if key in ("up", "down") and self.screen in _SCROLLED:
            # help is read downwards from its beginning, the log upwards from its end
            further = (key == "down") == (self.screen == HELP)
            return replace(self, scroll=max(0, self.scroll + (1 if further else -1)))
        return self._chosen(key, runs)

    def _typed(self, key: str) -> View:
        if key in ("enter", "escape"):
            return replace(self, typing=False, pattern=self.pattern if key == "enter" else "")
        if key == "backspace":
            return replace(self, pattern=self.pattern[:-1])
        return replace(self, pattern=self.pattern + key) if len(key) == 1 else self

    def _chosen(self, key: str, runs: int) -> View:
        """Return keys that choose a run: digits from 1, arrows, Enter in the list."""
        if key.isascii() and key.isdigit() and 1 <= int(key) <= runs:
            return replace(self, run=int(key) - 1, screen=MAIN, stage=None)
        step = {"left": -1, "up": -1, "right": 1, "down": 1}.get(key, 0)
        if step and runs > 1:
            return replace(self, run=(self.run + step) % runs, stage=None)
        return replace(self, screen=MAIN) if key == "enter" and self.screen == RUNS else self
