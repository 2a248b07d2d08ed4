"""Count what makes the code easy or hard to read: one table, for this tree or two trees.

    python benchmarks/house.py [TREE ...]

A tree is a checkout; without arguments it is this one. Printed: files per folder, functions over 60
lines, circles between modules, docstrings that open with a question word, words of the old dialect
in vlwm/, docs/ and the README (docs/decisions.md left out), own-line comments per 100 lines.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

OPENINGS = ("What", "Whether", "Where", "How", "Which")
DIALECT = re.compile(
    r"\b(rivals?|judge[sd]?|judging|mend(?:s|ed|ing)?|anew|beside|besides|said|says|saying|told"
    r"|lies?|lying|stands?|stood|(?:go|goes|going|went|gone) on|for want of|of equals|so many"
    r"|wish(?:es|ed)?|dearer|thrifty|speaks?|(?:is|are) not there"
    r"|(?<!there )(?:is|are|was|were) no)\b",
    re.I,
)
"""metaphors and turns of the old prose; "there is no X" is plain, `say` is a callback"""
COMMENTED = ("model", "training", "geometry")


@lru_cache
def modules(tree: Path) -> list[tuple[Path, str, ast.Module]]:
    """Return each module of the package with its text and syntax tree."""
    paths = sorted((tree / "vlwm").rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [(path, text, ast.parse(text)) for path, text in zip(paths, texts, strict=True)]


def functions(module: ast.Module) -> Iterator[int]:
    """Yield the length of each function."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def docstrings(module: ast.Module) -> Iterator[str]:
    """Yield every docstring."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(module):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def own_line_comments(path: Path) -> int:
    """Count comments that have a line of their own."""
    with open(path, "rb") as handle:
        tokens = tokenize.tokenize(handle.readline)
        return sum(t.type == tokenize.COMMENT and t.line.strip().startswith("#") for t in tokens)


def circles(tree: Path) -> int:
    """Count groups of modules that import each other, imports inside functions included."""
    names = {
        ".".join(p.relative_to(tree).with_suffix("").parts).removesuffix(".__init__"): m
        for p, _, m in modules(tree)
    }
    graph = {name: set(_imports(module)) & set(names) - {name} for name, module in names.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = 0

    def visit(name: str) -> None:  # Tarjan's strongly connected components
        nonlocal found
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = []
            while (top := stack.pop()) != name:
                group.append(top)
            found += bool(group)

    sys.setrecursionlimit(10_000)
    for name in graph:
        if name not in index:
            visit(name)
    return found


def _imports(module: ast.Module) -> Iterator[str]:
    """Yield what a module imports at run time (not what only type checkers see)."""
    hidden = {
        id(child)
        for node in ast.walk(module)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(module):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dialect(tree: Path) -> int:
    """Count words of the old dialect."""
    pages = [*(tree / "vlwm").rglob("*.py"), *(tree / "docs").glob("*.md"), tree / "README.md"]
    texts = (p.read_text(encoding="utf-8") for p in pages if p.name != "decisions.md")
    return sum(len(DIALECT.findall(text)) for text in texts)


def longest_decision(tree: Path) -> tuple[int, str]:
    """Return the lines of the longest entry of docs/decisions.md, and its first words."""
    longest, lines, name = (0, ""), 0, ""
    for line in (tree / "docs" / "decisions.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(("## ", "### ")):
            lines, name = 0, line.strip("# ")[:40]
        lines += bool(line.strip())
        longest = max(longest, (lines, name))
    return longest


def incomplete_decisions(tree: Path) -> int:
    """Count entries of docs/decisions.md that lack one of the four parts."""
    entries = (tree / "docs" / "decisions.md").read_text(encoding="utf-8").split("\n### ")[1:]
    parts = ("Context", "Choice", "Evidence", "Rejected")
    return sum(any(f"\n*{part}.* " not in entry for part in parts) for entry in entries)


def measure(tree: Path) -> dict[str, str]:
    """Return every figure of one tree."""
    lengths = [n for _, _, m in modules(tree) for n in functions(m)]
    texts = [text for _, _, m in modules(tree) for text in docstrings(m)]
    asked = sum(text.split(" ")[0].rstrip(":,") in OPENINGS for text in texts)
    folders: dict[Path, int] = {}
    lines = comments = 0
    for path, text, _ in modules(tree):
        folders[path.parent] = folders.get(path.parent, 0) + 1
        if any(room in path.parts for room in COMMENTED):
            lines += text.count("\n")
            comments += own_line_comments(path)
    fullest = max(folders, key=lambda f: folders[f])
    return {
        "modules": str(sum(folders.values())),
        "fullest folder": f"{folders[fullest]} ({fullest.relative_to(tree)})",
        "folders over 14 files": str(sum(n > 14 for n in folders.values())),
        "functions over 60 lines": str(sum(n > 60 for n in lengths)),
        "circles of modules": str(circles(tree)),
        "docstrings": str(len(texts)),
        "docstrings that open with a question word": str(asked),
        "words of the old dialect": str(dialect(tree)),
        "longest entry of docs/decisions.md, lines (goal: 15)": "{} ({})".format(
            *longest_decision(tree)
        ),
        "entries of docs/decisions.md without one of the four parts": str(
            incomplete_decisions(tree)
        ),
        "own-line comments per 100 lines (model, training, geometry)":
            f"{100 * comments / max(1, lines):.1f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trees", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    columns = [measure(tree.resolve()) for tree in parser.parse_args().trees]
    for name in columns[0]:
        print(f"{name:<60}" + "".join(f"{column[name]:>36}" for column in columns))


if __name__ == "__main__":
    main()
