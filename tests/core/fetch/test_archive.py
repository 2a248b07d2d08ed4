"""Nothing dangerous or damaged is unpacked, and an interrupted extraction goes on."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from vlwm.core.errors import DataError
from vlwm.core.fetch.archive import Limits, extract

FILES = {"a/one.obj": b"v 1 2 3\n" * 500, "a/two.mtl": b"newmtl x\n", "three.obj": b""}


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/", b"")
        for name, body in files.items():
            opened.writestr(name, body)
    return path


def make_tar(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            opened.addfile(info, io.BytesIO(body))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_round_trip(tmp_path: Path, make: object) -> None:
    archive = make(tmp_path / "x.bin")
    files = extract(archive, tmp_path / "out")
    assert {str(f.relative_to(tmp_path / "out")): f.read_bytes() for f in files} == FILES


def test_only_what_is_needed(tmp_path: Path) -> None:
    extract(make_zip(tmp_path / "x.zip"), tmp_path / "out", only=["*.obj"])
    names = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert names == ["one.obj", "three.obj"]


def test_an_interrupted_extraction_goes_on(tmp_path: Path) -> None:
    archive, out = make_zip(tmp_path / "x.zip"), tmp_path / "out"

    def stop(name: str) -> None:
        if name == "a/one.obj":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(archive, out, on_file=stop)
    kept = out / "a/one.obj"
    stamp = kept.stat().st_mtime_ns
    (out / "three.obj").write_bytes(b"wrong")
    extract(archive, out)
    assert kept.stat().st_mtime_ns == stamp
    assert (out / "three.obj").read_bytes() == b""


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil", "a/b/../../../evil"]
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_paths_that_lead_out_are_refused(tmp_path: Path, make: object, name: str) -> None:
    inside = tmp_path / "deep" / "out"
    archive = make(tmp_path / "x.bin", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out"):
        extract(archive, inside)
    assert not list(tmp_path.rglob("evil*")) and not inside.exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tars_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        info = tarfile.TarInfo("thing")
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    with pytest.raises(DataError, match="link or a device"):
        extract(tmp_path / "x.tar", tmp_path / "out")


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        info = zipfile.ZipInfo("thing")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="link or a device"):
        extract(tmp_path / "x.zip", tmp_path / "out")


def test_a_link_planted_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "a").symlink_to(outside)
    with pytest.raises(DataError, match="leads out"):
        extract(make_zip(tmp_path / "x.zip"), out)
    assert not list(outside.iterdir())


def test_bombs_are_refused(tmp_path: Path) -> None:
    bomb = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(5_000_000)})
    with pytest.raises(DataError, match="unpack to"):
        extract(bomb, tmp_path / "out", limits=Limits(ratio=50, free_ride_bytes=1000))
    with pytest.raises(DataError, match="more than 2 files"):
        extract(make_zip(tmp_path / "x.zip"), tmp_path / "out", limits=Limits(members=2))
    assert not (tmp_path / "out").exists()


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip")
    raw = bytearray(archive.read_bytes())
    at = raw.find(b"PK\x01\x02", raw.find(b"PK\x01\x02") + 4)
    raw[at + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="encrypted"):
        extract(archive, tmp_path / "out")


def test_a_damaged_member_leaves_no_file(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"one": bytes(range(256)) * 40})
    raw = bytearray(archive.read_bytes())
    raw[80] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "one").exists()


@pytest.mark.parametrize("body", [b"", b"<html>", b"PK\x03\x04 and nothing more"])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(DataError, match=r"the archive is refused: .*no archive"):
        extract(tmp_path / "x.zip", tmp_path / "out")
