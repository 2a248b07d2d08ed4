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


def test_every_decision_has_its_four_parts_in_fifteen_lines() -> None:
    assert incomplete_decisions(ROOT) == 0
    assert longest_decision(ROOT)[0] <= 15
