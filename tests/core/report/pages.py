"""A report page of a window that is made by hand."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np

from tests.trained_run import ATTRIBUTION, score_sheet
from vlwm.core.report.charts import reliability_chart, score_charts, training_charts
from vlwm.core.report.page import ReportContent, ShownWindow
from vlwm.core.report.windows import ReportWindow

SHAPE = (16, 16, 8)
HOSTILE = 'drone_"><script>alert(1)</script>\x1b[31m'


def window(kind: str = "typical") -> ReportWindow:
    """A street between two walls; the forecast has one wall a cell too far left."""
    truth = np.zeros((6, *SHAPE), np.uint8)
    truth[..., 0] = 1
    truth[:, :, 3, 1:6] = 1
    truth[:, :, 12, 1:4] = 1
    forecast = truth.copy()
    forecast[:, :, 12, 1:4], forecast[:, :, 13, 1:4] = 0, 1
    ego = np.stack([np.arange(-3, 7), 0 * np.arange(10), 0 * np.arange(10), 0 * np.arange(10)], 1)
    return ReportWindow(
        kind, f"{HOSTILE}, frame 3", truth[:4], truth,
        {"model": forecast, "memory_baseline": truth},
        ego.astype(float), ego[4:] + 0.2, np.arange(-3, 7) / 2, 0.5,
    )  # fmt: skip


def content(**changes: Any) -> ReportContent:
    found, sheet = window(), score_sheet()
    png = cv2.imencode(".png", np.full((40, 60, 3), 200, np.uint8))[1].tobytes()
    data = json.dumps(found.packed(SHAPE)).replace("<", "\\u003c")
    shown = [ShownWindow(f"{kind}: {found.title}", data, png) for kind in ("typical", "best")]
    grid = {"shape": SHAPE, "lower": (-8, -8, -2), "cell": (1, 1, 2), "ground": 2.0, "top": 14.0}
    lines = [{"step": n, "train/loss": 1 / n, "codebook/used": n} for n in range(1, 30)]
    reliability = reliability_chart(sheet)
    values: dict[str, Any] = {
        "title": f"Report of {HOSTILE}", "lead": ["One sentence."],
        "tables": [("caption", ("method", "1 s"), [("PREDICTED TRACK",), ("model", "0.5")])],
        "scores": score_charts(sheet), "calibration": [reliability] if reliability else [],
        "training": training_charts(lines, lines), "windows": shown, "grid": json.dumps(grid),
        "facts": [("run", HOSTILE)], "attribution": ATTRIBUTION,
    }  # fmt: skip
    return ReportContent(**{**values, **changes})
