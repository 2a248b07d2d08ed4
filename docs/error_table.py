"""Every error that the code can raise, read from the code itself: docs/errors.md and its test.

An error is a call of a class of the `VlwmError` family. Its words are what the sentence has at
that place, with … for what is known only when it happens.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlwm.core import errors

ROOT = Path(__file__).parents[1]
GAP = "…"
FAMILY = {
    name: value.exit_code
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.VlwmError)
}


@dataclass(frozen=True)
class Raised:
    """One place that raises."""

    module: str
    kind: str
    words: str
    """what happened"""
    remedy: str | None
    """what to do; None where none is given"""

    @property
    def pieces(self) -> list[str]:
        """The words between the gaps."""
        pieces = (piece.strip(" ,;:'\"") for piece in self.words.split(GAP))
        return [piece for piece in pieces if len(piece) > 3]


def every_error() -> list[Raised]:
    """All places in the order of the files."""
    return [found for path in sorted((ROOT / "vlwm").rglob("*.py")) for found in _of_file(path)]


def _of_file(path: Path) -> Iterator[Raised]:
    module = path.relative_to(ROOT / "vlwm").with_suffix("").as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = _named_texts(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id in FAMILY and node.args:
            remedy = next((k.value for k in node.keywords if k.arg == "remedy"), None)
            advice = None if remedy is None else _words(remedy, texts)
            yield Raised(module, node.func.id, _words(node.args[0], texts), advice)


def _named_texts(tree: ast.Module) -> dict[str, str]:
    """The texts that a file gives a name at its top."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _words(node: ast.expr, texts: dict[str, str]) -> str:
    """A literal or named text as it is, an f-string with gaps, everything else a gap."""
    if isinstance(node, ast.Name) and node.id in texts:
        return texts[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part, texts) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _words(node.left, texts) + _words(node.right, texts)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body, texts)} / {_words(node.orelse, texts)}"
    return GAP


def table() -> str:
    """The body of docs/errors.md."""
    rows = [
        f"| {FAMILY[e.kind]} | {_cell(e.words)} | {_cell(e.remedy or '')} | `{e.module}` |"
        for e in sorted(every_error(), key=lambda e: (FAMILY[e.kind], e.module, e.words))
    ]
    return "\n".join(["| code | what | what to do | raised in |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
