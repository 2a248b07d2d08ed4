"""`vlwm download` as an operator types it, against a real server and a stand-in of the Hub."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vlwm.commands.download import download
from vlwm.commands.shared.download_output import after_download
from vlwm.core.errors import DataError, UsageError
from vlwm.core.fetch.catalogue import Entry
from vlwm.core.fetch.download import Fetched

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(download)
TILE = b"b3dm" + struct.pack("<6I", 1, 28, 0, 0, 0, 0)
"""a header that states its own length"""


def vlwm(*args: str | Path) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_next_command_reads_what_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    obj = Entry("o", "plateau", "u", "plateau/meshes/obj/a.zip", format="obj")
    tiles = Entry("t", "plateau", "u", "plateau/3dtiles/13101/tileset.json", format="3dtiles",
                  ward="13101")  # fmt: skip
    weights = Entry("w", "models", "u", "pretrained/x.pth")
    sets = Entry("n", "nuscenes", "u", "nuscenes/a.tgz")

    def after(data: str, *entries: Entry) -> str | None:
        there = Path(data)
        return after_download([Fetched(e, e.path(there), 1, False) for e in entries], there)

    here, other = str(tmp_path), str(tmp_path / "my data")
    assert after("data", obj, weights) == f"cd {here} && vlwm prepare"
    assert after("my data", obj) == (
        f"vlwm prepare --input '{other}/plateau/meshes/obj/a.zip' --output '{other}/tokyo_obj'"
    )
    assert after("data", tiles) == (
        f"vlwm prepare --input {here}/data/plateau/3dtiles/13101 --output {here}/data/13101_3dtiles"
    )
    assert after("data", weights) == f"vlwm download --plateau --data-dir {here}/data"
    assert after("data", sets) == (
        f"vlwm prepare --dataset nuscenes --input {here}/data/nuscenes "
        f"--output {here}/data/nuscenes_sessions --config finetune_nuscenes"
    )
    assert after("data") is None


def test_the_commands_for_the_rest_name_the_same_folder(tmp_path: Path) -> None:
    there = tmp_path / "my data"
    text = vlwm("--all", "--dry-run", "--data-dir", there).stdout
    assert f"vlwm download --tartanair --data-dir '{there}'" in text
    assert "--data-dir" not in vlwm("--all", "--dry-run").stdout


@pytest.fixture
def catalogue(site: Any, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "catalogue.json"
    entry = {"name": "city", "group": "plateau", "url": f"{site.url}/city.bin",
             "file": "plateau/city.bin", "bytes": len(site.body),
             "sha256": hashlib.sha256(site.body).hexdigest(), "licence": "CC0"}  # fmt: skip
    form = {"name": "form", "group": "midair", "url": None, "file": "midair", "bytes": None,
            "sha256": None, "licence": "x", "how": "fill in the form"}  # fmt: skip
    path.write_text(json.dumps([entry, form]))
    yield path


def test_fetches_and_says_where(site: Any, catalogue: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = vlwm("--plateau", "--catalog", catalogue, "--data-dir", data, "--json")
    answer = json.loads(result.stdout)
    assert answer["fetched"][0]["path"] == str(data / "plateau/city.bin")
    assert (data / "plateau/city.bin").read_bytes() == site.body
    again = json.loads(
        vlwm("--plateau", "--catalog", catalogue, "--data-dir", data, "--json").stdout
    )
    assert again["fetched"][0]["was_there"] is True
    assert len(site.requests) == 1


def test_list_and_dry_run_fetch_nothing(site: Any, catalogue: Path, tmp_path: Path) -> None:
    for flag in ("--list", "--dry-run"):
        args = (flag, "--catalog", catalogue, "--data-dir", tmp_path / "d", "--json")
        answer = json.loads(vlwm(*args).stdout)
        assert {e["name"] for e in answer["entries"]} == {"city", "form"}
        assert answer["missing_bytes"] == len(site.body)
        assert "city" in vlwm(*args[:-1]).stdout
    assert site.requests == [] and not (tmp_path / "d").exists()


def test_what_stands_behind_a_form_says_what_to_do(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fill in the form"):
        vlwm("--midair", "--catalog", catalogue, "--data-dir", tmp_path / "d")


def test_a_list_of_links_is_fetched_and_unpacked(
    site: Any, catalogue: Path, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("one.txt", "1")
    site.body = packed.getvalue()
    links = tmp_path / "links.txt"
    links.write_text(f"# from the mail\n{site.url}/part1.zip?key=1\n")
    data = tmp_path / "d"
    vlwm("--midair", "--links", links, "--catalog", catalogue, "--data-dir", data)
    assert (data / "midair/part1/one.txt").read_text() == "1"
    before = len(site.requests)
    vlwm("--midair", "--links", links, "--catalog", catalogue, "--data-dir", data)
    assert len(site.requests) == before


def test_what_a_form_gave_may_be_files_and_parts_of_one_tree(
    catalogue: Path, tmp_path: Path
) -> None:
    entries = json.loads(catalogue.read_text())
    entries[1] |= {"together": True, "extract": "midair"}
    catalogue.write_text(json.dumps(entries))
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / f"part{number}.zip", "w") as opened:
            opened.writestr(f"samples/{number}.txt", str(number))
    links, data = tmp_path / "links.txt", tmp_path / "d"
    links.write_text("part1.zip\nabsent.zip\n")
    base = ("--midair", "--catalog", catalogue, "--data-dir", data, "--links")
    with pytest.raises(DataError, match=r'"absent\.zip" is neither a URL nor a file'):
        vlwm(*base, links)
    links.write_text("# two parts\npart1.zip\n")
    vlwm(*base, links)
    vlwm(*base, tmp_path / "part2.zip")
    got = {p.name: p.read_text() for p in (data / "midair/samples").iterdir()}
    assert got == {"1.txt": "1", "2.txt": "2"}
    assert (tmp_path / "part1.zip").exists() and not (data / "midair/part1.zip").exists()
    again = json.loads(vlwm(*base, tmp_path / "part2.zip", "--json").stdout)
    assert again["fetched"][0]["was_there"] is True


def test_a_failure_ends_with_its_code_after_the_others(
    site: Any, catalogue: Path, tmp_path: Path
) -> None:
    entries = json.loads(catalogue.read_text())[:1]
    bad = {**entries[0], "name": "bad", "file": "bad.bin", "sha256": "0" * 64, "bytes": None}
    catalogue.write_text(json.dumps([bad, *entries]))
    with pytest.raises(DataError, match=r"1 of 2 downloads failed.*SHA-256"):
        vlwm("--catalog", catalogue, "--data-dir", tmp_path / "d")
    assert (tmp_path / "d/plateau/city.bin").exists()
    assert not (tmp_path / "d/bad.bin").exists()


def test_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean citygml"):
        vlwm("--plateau", "--format", "cityglm", "--data-dir", tmp_path)


def test_wards_come_from_plateaus_catalogue(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"city_code": "13101", "year": 2023, "url": f"{site.url}/13101.zip"}
    site.body = json.dumps({"datasets": [], "citygml": [row]}).encode()
    monkeypatch.setenv("VLWM_PLATEAU_API", site.url + "/api")
    base = ("--plateau", "--format", "citygml", "--data-dir", tmp_path / "d", "--list", "--json")
    answer = json.loads(vlwm(*base, "--ward", "13101").stdout)
    assert [e["path"] for e in answer["entries"]] == [str(tmp_path / "d/plateau/citygml/13101.zip")]
    with pytest.raises(DataError, match="PLATEAU's catalogue has no citygml for 99999"):
        vlwm(*base, "--ward", "99999")
    monkeypatch.setenv("VLWM_PLATEAU_API", "http://127.0.0.1:9/api")
    (tmp_path / "d/.plateau-catalogue.json").unlink()
    with pytest.raises(DataError, match=r"cannot reach 127\.0\.0\.1"):
        vlwm(*base, "--ward", "13101")
    tiles = ("--plateau", "--format", "3dtiles", "--data-dir", tmp_path / "d", "--list", "--json")
    (entry,) = json.loads(vlwm(*tiles, "--ward", "13101").stdout)["entries"]
    assert entry["name"] == "chiyoda-3dtiles-2022"  # exactly this ward is in the built-in list
    with pytest.raises(UsageError, match=r"no obj of ward 13101 alone: add --format citygml"):
        vlwm("--ward", "13101", "--list")


def test_tiles_take_the_leaves_only(site: Any, tmp_path: Path) -> None:
    tileset = {"root": {"content": {"uri": "parent.b3dm"}, "children": [
        {"content": {"uri": "data/a.b3dm"}}, {"children": [{"content": {"url": "data/b.b3dm"}}]},
    ]}}  # fmt: skip
    bodies = dict.fromkeys(("/t/parent.b3dm", "/t/data/a.b3dm", "/t/data/b.b3dm"), TILE)
    serve(site, bodies | {"/t/tileset.json": json.dumps(tileset).encode()})
    entry = {"name": "tiles", "group": "plateau", "url": f"{site.url}/t/tileset.json",
             "file": "plateau/3dtiles/x/tileset.json", "bytes": None, "sha256": None,
             "licence": "CC BY", "format": "3dtiles"}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    args = ("--plateau", "--format", "3dtiles", "--catalog", tmp_path / "c.json")
    try:
        vlwm(*args, "--data-dir", tmp_path / "d")
    finally:
        site.restore()
    folder = tmp_path / "d/plateau/3dtiles/x"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"tileset.json", "data/a.b3dm", "data/b.b3dm", ".tileset.json.done.json"}
    assert [r["path"] for r in site.requests][1:] == ["/t/data/a.b3dm", "/t/data/b.b3dm"]


def test_tiles_follow_outer_sets_and_buffers(site: Any, tmp_path: Path) -> None:
    """One body serves as outer set, inner set and glTF: each address is fetched once."""
    site.body = json.dumps({
        "root": {"refine": "ADD", "content": {"uri": "sub/inner.json"}, "children": [
            {"content": {"uri": "a.gltf?v=1"}}]},
        "buffers": [{"uri": "a.bin"}],
    }).encode()  # fmt: skip
    entry = {"name": "tiles", "group": "plateau", "url": f"{site.url}/t/tileset.json",
             "file": "plateau/3dtiles/x/tileset.json", "bytes": None, "sha256": None,
             "licence": "CC BY", "format": "3dtiles"}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    args = ("--plateau", "--format", "3dtiles", "--catalog", tmp_path / "c.json")
    with pytest.raises(DataError, match="leads out of the folder"):
        site.body = site.body.replace(b"sub/inner.json", b"../../../../out.b3dm")
        vlwm(*args, "--data-dir", tmp_path / "e")
    site.body = site.body.replace(b"../../../../out.b3dm", b"tileset.json")
    vlwm(*args, "--data-dir", tmp_path / "d")
    folder = tmp_path / "d/plateau/3dtiles/x"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"tileset.json", "a.gltf", "a.bin", ".tileset.json.done.json"}


def serve(site: Any, bodies: dict[str, bytes]) -> None:
    """Let the server answer by path; what it does not know is missing."""
    from tests.http_site import Handler

    def do_GET(handler: Any) -> None:
        site.requests.append({"path": handler.path})
        found = bodies.get(handler.path)
        handler.plain(404 if found is None else 200, found or b"")

    site.handler = do_GET
    original = Handler.do_GET
    Handler.do_GET = do_GET
    site.restore = lambda: setattr(Handler, "do_GET", original)


def entry_of(site: Any, path: str, file: str, **more: Any) -> dict[str, Any]:
    return {"name": "it", "group": "plateau", "url": site.url + path, "file": file, "bytes": None,
            "sha256": None, "licence": "CC BY", **more}  # fmt: skip


def test_nested_tile_sets_come_with_their_tiles(site: Any, tmp_path: Path) -> None:
    outer = {"root": {"children": [{"content": {"uri": "inner/tileset.json"}}]}}
    inner = {"root": {"refine": "ADD", "content": {"uri": "a.b3dm"}, "children": [
        {"content": {"uri": "b.b3dm"}}]}}  # fmt: skip
    bodies = {"/t/tileset.json": json.dumps(outer).encode(),
              "/t/inner/tileset.json": json.dumps(inner).encode(),
              "/t/inner/a.b3dm": TILE}  # fmt: skip
    serve(site, bodies)
    try:
        entry = entry_of(
            site, "/t/tileset.json", "plateau/3dtiles/x/tileset.json", format="3dtiles"
        )
        (tmp_path / "c.json").write_text(json.dumps([entry]))
        args = ("--plateau", "--format", "3dtiles", "--catalog", tmp_path / "c.json", "--data-dir",
                tmp_path / "d")  # fmt: skip
        folder = tmp_path / "d/plateau/3dtiles/x"
        with pytest.raises(DataError, match="404"):
            vlwm(*args)
        assert not (folder / ".tileset.json.done.json").exists()
        bodies["/t/inner/b.b3dm"] = TILE
        vlwm(*args)
        assert (folder / "inner/b.b3dm").exists() and (folder / ".tileset.json.done.json").exists()
    finally:
        site.restore()


def test_half_a_file_under_its_name_is_fetched_again(site: Any, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("a.gml", "x" * 1000)
    for name, whole in (("a.zip", packed.getvalue()), ("a.obj", b"v 0 0 0\n" * 50)):
        site.body = whole
        entry = entry_of(site, f"/{name}", f"plateau/{name}")
        (tmp_path / "c.json").write_text(json.dumps([entry]))
        args = ("--catalog", tmp_path / "c.json", "--data-dir", tmp_path / "d")
        for half in (whole[: len(whole) // 2], b""):
            (tmp_path / "d/plateau").mkdir(parents=True, exist_ok=True)
            (tmp_path / "d/plateau" / name).write_bytes(half)
            if name == "a.zip" or not half:
                assert "already downloaded" not in vlwm(*args).stdout
                assert (tmp_path / "d/plateau" / name).read_bytes() == whole
        assert "already downloaded" in vlwm(*args).stdout


def test_a_page_and_a_file_of_another_size_are_not_the_weights(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlwm.core.fetch.version.random.uniform", lambda low, high: 0.0)
    entry = entry_of(site, "/w.pth", "pretrained/w.pth", group="models", about_bytes=721_000_000)
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    args = ("--models", "--catalog", tmp_path / "c.json", "--data-dir", tmp_path / "d")
    for body in (
        b"\xef\xbb\xbf<html>sign in</html>",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.abc",
    ):
        site.body = body
        with pytest.raises(DataError, match=r"a web page came|the catalogue has about 721000000"):
            vlwm(*args)
        assert not list(tmp_path.rglob("w.pth"))


def test_all_takes_what_is_bounded_and_fits_and_lists_the_rest(site: Any, tmp_path: Path) -> None:
    small = entry_of(site, "/s.bin", "s.bin", name="small", bytes=len(site.body))
    huge = entry_of(site, "/h.bin", "h.bin", name="huge", about_bytes=10**17)
    endless = entry_of(site, "/e.bin", "e.bin", name="endless", group="tartanair")
    form = entry_of(
        site, "/f", "f", name="form", group="midair", how="fill in the form, and run: x"
    )
    form["url"] = None
    (tmp_path / "c.json").write_text(json.dumps([endless, huge, form, small]))
    args = ("--all", "--catalog", tmp_path / "c.json", "--data-dir", tmp_path / "d")
    out = vlwm(*args).stdout
    assert "small" in out and "(at least 100000000.0 GB)" in out and "endless: size unknown" in out
    assert "vlwm download --tartanair" in out and "vlwm download --midair --links FILE" in out
    assert "first fill in the form" in out and [r["path"] for r in site.requests] == ["/s.bin"]
    answer = json.loads(vlwm(*args, "--dry-run", "--json").stdout)
    assert {e["name"] for e in answer["left_out"]} == {"huge", "endless", "form"}


def test_without_a_network_it_says_so_at_once(tmp_path: Path) -> None:
    import time

    entry = {"name": "far", "group": "plateau", "url": "https://no-such-host.invalid/x.zip",
             "file": "x.zip", "licence": "x"}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"cannot reach no-such-host.invalid"):
        vlwm("--catalog", tmp_path / "c.json", "--data-dir", tmp_path / "d")
    assert time.monotonic() - began < 5.0


def test_the_list_fits_80_columns(tmp_path: Path) -> None:
    lines = vlwm("--list", "--data-dir", "data").stdout.splitlines()
    assert max(len(line) for line in lines if "To download" not in line) <= 160
    assert any(line.startswith("tokyo23ku-obj-2020") and "about 2.1 GB" in line for line in lines)
    assert any("at least" in line for line in lines)
