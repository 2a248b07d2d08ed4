"""The documents say what the code does: reference tables, links, and the README's two commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_generated_from_the_code() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "run: python docs/generate.py\n" + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_row_of_a_table_is_broken(page: Path) -> None:
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [row for row in rows if not row.rstrip().endswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_files_of_the_code_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:vlwm/|core/|tests/|benchmarks/|docs/)[\w/.]*)`", text):
        place = ROOT / "vlwm" / name if name.startswith("core/") else ROOT / name
        assert place.exists() or place.with_suffix(".py").exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_exist(page: Path) -> None:
    """Every `vlwm …` line of a code block names a command and options that are there."""
    known = _known_options()
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.splitlines():
            for call in re.findall(r"(?:^|&& |\$ )vlwm ([^#|&;]*)", line):
                words = call.split()
                assert words[0] in known, line
                for option in (w.split("=")[0] for w in words[1:] if w.startswith("--")):
                    assert option in known[words[0]], f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_benchmarks_and_their_options_exist(page: Path) -> None:
    """Fault: a page names a benchmark, or an option of one, that was renamed or removed."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    shared = (ROOT / "benchmarks" / "of_a_run.py").read_text(encoding="utf-8")
    for name, rest in re.findall(r"(?:python|-m) benchmarks[/.](\w+)(?:\.py)?([^`\n·]*)", text):
        script = ROOT / "benchmarks" / f"{name}.py"
        assert script.is_file(), f"{page.name}: {name}"
        source = script.read_text(encoding="utf-8")
        source += shared if "of_a_run" in source else ""
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
            assert f'"{option}"' in source, f"{page.name}: {name} {option}"


def _known_options() -> dict[str, set[str]]:
    import typer

    from vlwm.cli import app

    group = typer.main.get_command(app)
    found = {"--help": {"--help"}, "--version": set()}
    for name, command in group.commands.items():
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        found[name] = options | {"--help"}
    return found


def test_ci_calls_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^pip install .* && vlwm train .*$", readme, re.M)) == 1
    assert len(re.findall(r"^pip install .* && pytest.*$", readme, re.M)) == 1
    assert "README.md" in (ROOT / ".ci/run").read_text()


def test_every_picture_is_drawn_by_the_command_and_shown_on_a_page() -> None:
    tree = ast.parse((ROOT / "docs/pictures.py").read_text(encoding="utf-8"))
    (drawn,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PICTURES"
    ]
    images = {p.name for p in (ROOT / "docs/images").iterdir()}
    assert images == {*drawn, "train.svg"}, "drawn by docs/pictures.py, recorded by docs/cast.py"
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in images:
        assert f"images/{name})" in pages, name


def test_nothing_of_a_machine_or_a_registry_is_named() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    words = re.compile("/" + "work/|pypi" + r"\.org")
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json") and path.exists():
            assert not words.search(path.read_text(encoding="utf-8")), name
