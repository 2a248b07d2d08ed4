"""The run folder: the only contract between `train`, `eval` and `monitor`.

    checkpoints/                       --work-dir
      epoch_5.pth … best.pth last.pth
      opening.pth                      before the first last.pth of stage 2: what it has learnt
      logs/events.out.*   train_YYYYMMDD_HHMMSS.log
      config.json  data.json  splits.json  metrics.jsonl  status.json  scores.json
      tokenizer/                       the same tree for stage 1
      tokens/                          codes of frames, made again where they are missing

Nothing here knows torch: the dashboard reads these files while another process trains.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlwm.core.errors import DataError
from vlwm.core.files import make_folder, read_json, write_json
from vlwm.core.vocabulary import Stage

_EPOCH = re.compile(r"epoch_(\d+)\.pth$")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and its small files."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def best(self) -> Path:
        """Checkpoint with the lowest validation loss."""
        return self.path / "best.pth"

    @property
    def last(self) -> Path:
        """Newest checkpoint, written by time and on signals."""
        return self.path / "last.pth"

    @property
    def opening(self) -> Path:
        """Path of what stage 2 has learnt before its first checkpoint."""
        return self.path / "opening.pth"

    def epoch(self, number: int) -> Path:
        """Return periodic checkpoint of an epoch (counted from 1)."""
        return self.path / f"epoch_{number}.pth"

    @property
    def report_html(self) -> Path:
        """The page about the run, written at its end."""
        return self.path / "report.html"

    @property
    def logs(self) -> Path:
        """Folder of the TensorBoard event files."""
        return self.path / "logs"

    @property
    def config_json(self) -> Path:
        return self.path / "config.json"

    @property
    def splits_json(self) -> Path:
        return self.path / "splits.json"

    @property
    def metrics_jsonl(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status_json(self) -> Path:
        return self.path / "status.json"

    @property
    def scores_json(self) -> Path:
        return self.path / "scores.json"

    @property
    def data_json(self) -> Path:
        """Return the file that remembers which data the run is trained on, and where they are."""
        return self.path / "data.json"

    def remember_data(self, root: str, data_hash: str) -> None:
        """Write the data's path as typed, its absolute place, and the hash of their content."""
        absolute = str(Path(root).resolve())
        write_json(
            self.data_json, {"data_root": root, "absolute": absolute, "data_hash": data_hash}
        )

    def read_data(self) -> dict[str, str]:
        """Return what `remember_data` wrote; empty where it is missing or damaged."""
        try:
            values = read_json(self.data_json)
        except DataError:
            return {}
        found = values.items() if isinstance(values, dict) else ()
        return {str(k): v for k, v in found if isinstance(v, str)}

    def find_data(self, root: str | Path) -> Path:
        """Return where the run's data are: its absolute place if that exists, else `root`."""
        remembered = self.read_data()
        place = Path(remembered.get("absolute") or root)
        same = remembered.get("data_root", str(root)) == str(root)
        return place if same and place.is_dir() else Path(root)

    @property
    def tokenizer(self) -> RunFolder:
        """The run folder of stage 1, inside this one."""
        return RunFolder(self.path / Stage.TOKENIZER)

    def create(self) -> RunFolder:
        """Make the folder and its `logs/`."""
        make_folder(self.path)
        make_folder(self.logs)
        return self

    def checkpoints(self) -> list[Path]:
        """Return checkpoints that exist: periodic ones by epoch, then best, then last."""
        named = ((_EPOCH.search(path.name), path) for path in self.path.glob("epoch_*.pth"))
        by_epoch = sorted((int(match.group(1)), path) for match, path in named if match)
        periodic = [path for _, path in by_epoch]
        return periodic + [p for p in (self.best, self.last) if p.exists()]

    def holds_a_run(self) -> bool:
        """Return whether a checkpoint of either stage is here, or what precedes the first."""
        begun = self.checkpoints() or self.tokenizer.checkpoints()
        return bool(begun) or self.opening.exists()

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace `status.json` whole."""
        write_json(self.status_json, status)

    def read_status(self) -> dict[str, Any] | None:
        """Return the newest status, or None before the first one."""
        if not self.status_json.exists():
            return None
        return read_json(self.status_json)

    def read_metrics(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Return whole metric lines from byte `offset` on, and the next offset.

        A file shorter than `offset` was cut by a resume: reading starts over. A last line that is
        still being written is left for the next call; a damaged line is passed over.
        """
        try:
            with open(self.metrics_jsonl, "rb") as handle:
                size = handle.seek(0, 2)
                start = offset if offset <= size else 0
                handle.seek(start)
                block = handle.read()
        except FileNotFoundError:
            return [], 0
        end = block.rfind(b"\n") + 1
        records = [r for line in block[:end].splitlines() if (r := _parse(line)) is not None]
        return records, start + end


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
