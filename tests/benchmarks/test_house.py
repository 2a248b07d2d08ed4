"""The code keeps the measures of `benchmarks/house.py`: sizes, circles, docstrings, decisions."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from house import (
    OPENINGS,
    circles,
    docstrings,
    incomplete_decisions,
    longest_decision,
    modules,
)

ROOT = Path(__file__).parents[2]
MODULES = modules(ROOT)
LONG_COMMANDS = {("prepare.py", "prepare"), ("train.py", "train")}
"""their signatures are tables of options (see the comments there)"""

JSON, CHECKPOINT, FOREIGN = "JSON", "checkpoint", "a library without types"
DOORS = {
    # room: uses of Any at most, and what comes in there
    "": (3, f"{FOREIGN}: Typer's help, and its context"),
    "commands": (6, f"{JSON} to print, results of one command or another"),
    "config": (79, "values of a config file, of any type until they are checked"),
    "core": (37, f"{JSON} of status, locks, 3D Tiles; {FOREIGN}: Dask; items of workers"),
    "city/readers": (1, f"{FOREIGN}: lxml, all of whose elements are one alias"),
    "city/readers/tiles": (27, f"{JSON} of glTF and b3dm"),
    "city/reading": (1, f"{JSON} that one process leaves for another"),
    "city/tiling": (11, f"{JSON} of an index, and arrays whose types a file states"),
    "cloud": (3, f"{JSON} of providers and of --json"),
    "data": (21, f"{JSON} of sessions and splits, arrays whose types a file states"),
    "data/generation": (9, f"{JSON} of plans"),
    "data/recordings": (3, f"{JSON} of plans"),
    "data/recordings/checking": (1, f"{JSON} of sessions"),
    "data/recordings/formats": (5, "YAML of extrinsics; ULog's arrays, whose types a file states"),
    "data/recordings/readers": (16, f"{JSON} of data sets; {FOREIGN}: messages of bags"),
    "data/sensors": (9, f"{JSON} of sessions"),
    "data/shards": (15, f"{JSON} of headers, tables whose types a file states"),
    "evaluation": (10, f"{JSON} of score sheets, {CHECKPOINT}"),
    "evaluation/baselines": (8, CHECKPOINT),
    "evaluation/calibration": (2, CHECKPOINT),
    "evaluation/observed": (1, f"{JSON} of score sheets"),
    "evaluation/scores": (20, f"{JSON} of score sheets"),
    "export": (22, f"{JSON} of score sheets and exported folders, {CHECKPOINT}"),
    "export/onnx": (3, f"{JSON} of onnx.json"),
    "fetch": (10, f"{JSON} of catalogues and services"),
    "figures": (7, f"{JSON} of score sheets"),
    "hardware": (3, f"{JSON} of a child process and of --json"),
    "model": (30, f"{CHECKPOINT}; {FOREIGN}: the context of torch's functions"),
    "model/tokenizer": (2, CHECKPOINT),
    "monitoring": (12, f"{JSON} of metrics and of --json"),
    "report": (22, f"{JSON} of score sheets, metrics and pages"),
    "store": (18, f"{JSON} of headers, tables whose types a file states; {FOREIGN}: fsspec"),
    "training": (3, f"{CHECKPOINT}, {JSON} of score sheets"),
    "training/loop": (17, f"{CHECKPOINT}; a batch, which each task has its own of"),
    "training/runtime": (3, f"{CHECKPOINT}; {FOREIGN}: the store of torch.distributed"),
    "training/startup": (25, f"{CHECKPOINT}, {JSON} of configs and plans"),
    "training/tasks": (5, f"{CHECKPOINT}; a batch, which each phase has its own of"),
    "training/telemetry": (17, f"{JSON} of status and metrics; {FOREIGN}: W&B's run"),
}
"""where a value may have any type: at the doors, and no oftener than now"""


def test_no_folder_holds_more_than_fourteen_files() -> None:
    tests = (ROOT / "tests").rglob("*.py")
    folders = Counter(path.parent for path in [*(path for path, _, _ in MODULES), *tests])
    assert {str(folder): n for folder, n in folders.items() if n > 14} == {}


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    lines = {str(path): text.count("\n") for path, text, _ in MODULES}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = {
        (path.name, node.name)
        for path, _, module in MODULES
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > 60
    }
    assert long <= LONG_COMMANDS


def test_no_modules_import_each_other() -> None:
    assert circles(ROOT) == 0


def test_no_docstring_opens_with_a_question_word() -> None:
    texts = [text for _, _, module in MODULES for text in docstrings(module)]
    asked = [text[:60] for text in texts if text.split(" ")[0].rstrip(":,") in OPENINGS]
    assert asked == []


def test_any_type_is_named_at_the_doors_alone() -> None:
    found: Counter[str] = Counter()
    for path, _, module in MODULES:
        room = path.relative_to(ROOT / "vlwm").parent.as_posix()
        room = {".": "", "core": "core"}.get(room, room.removeprefix("core/").split("/shared")[0])
        names = (node for node in ast.walk(module) if isinstance(node, ast.Name))
        found[room] += sum(name.id == "Any" for name in names)
    assert {room: n for room, n in found.items() if n > DOORS.get(room, (0, ""))[0]} == {}


def test_every_decision_has_its_four_parts_in_fifteen_lines() -> None:
    assert incomplete_decisions(ROOT) == 0
    assert longest_decision(ROOT)[0] <= 15
