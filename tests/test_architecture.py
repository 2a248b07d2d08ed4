"""The imports go one way (docs/decisions.md), and the command line starts light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vlwm"

FOUNDATION = {
    "errors", "text", "tile_tree", "files", "parallel", "run_folder", "config", "signals",
    "vocabulary", "folder_lock", "metric_names", "engines",
    "run_status",
    "locale_names",
}  # fmt: skip
ALLOWED = {
    "store": set(),
    "fetch": {"store"},
    "hardware": set(),
    "cloud": {"hardware"},
    "monitoring": {"hardware", "store"},
    "geometry": set(),
    "city": {"geometry", "store"},
    "data": {"geometry", "city", "store"},
    "model": {"geometry", "data"},
    "evaluation": {"geometry", "city", "data", "model"},
    "training": {"geometry", "city", "data", "model", "evaluation", "hardware", "store"},
    "figures": {"geometry", "city", "data", "model", "evaluation"},
    "report": {"geometry", "city", "data", "model", "evaluation", "figures"},
    "export": {"geometry", "city", "data", "model", "evaluation", "figures"},
}
"""room of `vlwm/core` -> rooms it may import, beside the foundation and itself"""
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module a file imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{a.name}" for a in node.names}
    return found


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    if parts[0] != "core":
        return parts[0].removesuffix(".py")
    name = parts[1].removesuffix(".py")
    return "foundation" if name in FOUNDATION or name == "__init__" else name


def test_what_is_imported_exists() -> None:
    """Also inside of functions, where a module that has moved shows only to an operator."""
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
               for p in MODULES}  # fmt: skip
    lost = []
    for folder in ("vlwm", "tests", "benchmarks", "docs", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in (n for n in imports(path) if n.startswith("vlwm.")):
                home, _, last = name.rpartition(".")
                if name not in modules and not (
                    home in modules and re.search(rf"\b{last}\b", modules[home].read_text("utf-8"))
                ):
                    lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert lost == []


def test_every_room_is_known() -> None:
    rooms = {room(path) for path in MODULES if path.relative_to(PACKAGE).parts[0] == "core"}
    assert rooms - {"foundation"} <= set(ALLOWED)


def test_no_circle_between_rooms() -> None:
    def reach(name: str, seen: tuple[str, ...] = ()) -> None:
        assert name not in seen, " -> ".join((*seen, name))
        for below in ALLOWED[name]:
            reach(below, (*seen, name))

    for name in ALLOWED:
        reach(name)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_inside_functions_name_modules_that_exist(path: Path) -> None:
    """Fault: a module moves, and an import in a function that no test calls keeps its name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] == "vlwm":
                place = ROOT.joinpath(*name.split("."))
                assert place.is_dir() or place.with_suffix(".py").is_file(), name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "vlwm" or len(parts) == 1:
            continue
        if here in ALLOWED or here == "foundation":
            assert parts[1] not in ("cli", "commands"), f"{here} imports {name}"
        if parts[1] == "core":
            assert len(parts) < 3 or parts[2] in FOUNDATION or parts[2] in ALLOWED, name
        if parts[1] != "core" or len(parts) < 3 or parts[2] in FOUNDATION:
            continue
        if here in ALLOWED:
            assert parts[2] == here or parts[2] in ALLOWED[here], f"{here} imports {name}"
        assert here != "foundation", f"foundation imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    here = room(path)
    tops = {name.split(".")[0] for name in imports(path)}
    if here not in ("cli", "commands", "help_screen"):
        assert "typer" not in tops
    if here not in ("cli", "commands", "monitoring"):
        assert "rich" not in tops
    torch_is_fine = here in (
        "model",
        "training",
        "evaluation",
        "figures",
        "export",
        "report",
    ) or path.name in (
        "batch.py",
        "datasets.py",
        "sampler.py",
    )
    if not torch_is_fine and here not in ("commands",):
        assert "torch" not in tops


def test_commands_import_nothing_heavy() -> None:
    script = (
        "import sys; import vlwm.cli; "
        "heavy = {'torch', 'numpy', 'scipy', 'cv2', 'numba', 'trimesh', 'wandb', 'lxml'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "args", [[], ["setup"], ["download"], ["prepare"], ["train"], ["eval"], ["export"], ["monitor"]]
)
def test_help_never_imports_torch(args: list[str]) -> None:
    script = (
        "import sys, atexit; sys.argv = ['vlwm', *{args!r}, '--help']; "
        "heavy = lambda: 'torch' if 'torch' in sys.modules else 'light'; "
        "atexit.register(lambda: sys.stderr.write(heavy())); "
        "from vlwm.cli import main; main()"
    ).replace("{args!r}", repr(args))
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0
    assert "Usage" in out.stdout
    assert out.stderr == "light"
