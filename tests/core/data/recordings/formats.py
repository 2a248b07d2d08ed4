"""Write one recording in other people's formats, by writers that share no code with the readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vlwm.core.data.recordings.recording import Recording, Scan


def write_bin(path: Path, scan: Scan) -> None:
    rows = np.column_stack([scan.points, intensity(scan)]).astype("<f4")
    path.with_suffix(".bin").write_bytes(rows.tobytes())


def write_npy(path: Path, scan: Scan) -> None:
    np.save(path.with_suffix(".npy"), np.column_stack([scan.points, intensity(scan)]))


def intensity(scan: Scan) -> np.ndarray:
    return np.zeros(len(scan.points)) if scan.intensity is None else scan.intensity


def offsets(scan: Scan) -> np.ndarray:
    """Seconds of each point after the stamp of its scan."""
    times = np.full(len(scan.points), scan.time_s) if scan.times_s is None else scan.times_s
    return times - scan.time_s


def pcd_header(count: int, kind: str) -> bytes:
    return (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity t\nSIZE 4 4 4 4 4\nTYPE F F F F U\n"
        f"COUNT 1 1 1 1 1\nWIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\n"
        f"DATA {kind}\n"
    ).encode()


def pcd_rows(scan: Scan) -> np.ndarray:
    """Rows with the time of each point in nanoseconds after the stamp, as Ouster writes them."""
    names = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("t", "<u4")]
    rows = np.zeros(len(scan.points), names)
    for k, axis in enumerate("xyz"):
        rows[axis] = scan.points[:, k]
    rows["intensity"] = intensity(scan)
    rows["t"] = np.round(offsets(scan) * 1e9)
    return rows


def write_pcd(path: Path, scan: Scan) -> None:
    rows = pcd_rows(scan)
    path.with_suffix(".pcd").write_bytes(pcd_header(len(rows), "binary") + rows.tobytes())


def write_pcd_ascii(path: Path, scan: Scan) -> None:
    rows = pcd_rows(scan)
    text = "\n".join(" ".join(repr(v.item()) for v in row) for row in rows)
    path.with_suffix(".pcd").write_bytes(pcd_header(len(rows), "ascii") + text.encode())


def write_pcd_compressed(path: Path, scan: Scan) -> None:
    rows = pcd_rows(scan)
    body = b"".join(np.ascontiguousarray(rows[n]).tobytes() for n in rows.dtype.names)
    packed = lzf(body)
    sizes = struct.pack("<II", len(packed), len(body))
    path.with_suffix(".pcd").write_bytes(
        pcd_header(len(rows), "binary_compressed") + sizes + packed
    )


def lzf(raw: bytes) -> bytes:
    """LZF with back references to runs of equal four bytes, and literals for the rest."""
    out, start, at = bytearray(), 0, 0

    def literals(stop: int) -> None:
        for begin in range(start, stop, 32):
            piece = raw[begin : min(begin + 32, stop)]
            out.append(len(piece) - 1)
            out.extend(piece)

    while at < len(raw):
        if at >= 4 and raw[at : at + 12] == raw[at - 4 : at + 8] and at + 12 <= len(raw):
            literals(at)  # 12 bytes from 4 back: length field 7, one more byte, offset 3
            out.extend([7 << 5, 12 - 2 - 7, 3])
            at += 12
            start = at
        else:
            at += 4
    literals(len(raw))
    return bytes(out)


def write_ply(path: Path, scan: Scan) -> None:
    """Big-endian, with the time of each point in seconds after the stamp."""
    names = [("x", ">f4"), ("y", ">f4"), ("z", ">f4"), ("intensity", ">f4"), ("time", ">f8")]
    rows = np.zeros(len(scan.points), names)
    for k, axis in enumerate("xyz"):
        rows[axis] = scan.points[:, k]
    rows["intensity"], rows["time"] = intensity(scan), offsets(scan)
    head = f"ply\nformat binary_big_endian 1.0\nelement vertex {len(rows)}\n"
    kinds = {"x": "float", "y": "float", "z": "float", "intensity": "float", "time": "double"}
    head += "".join(f"property {kind} {name}\n" for name, kind in kinds.items()) + "end_header\n"
    path.with_suffix(".ply").write_bytes(head.encode() + rows.tobytes())


def write_laz(path: Path, scan: Scan, ending: str = ".laz") -> None:
    """With the time of each point as GPS time in seconds, absolute."""
    import laspy

    header = laspy.LasHeader(point_format=1, version="1.2")
    header.scales = [1e-5] * 3
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = scan.points.astype(float).T
    cloud.intensity = intensity(scan)
    cloud.gps_time = scan.times_s
    cloud.write(str(path.with_suffix(ending)))


def write_las(path: Path, scan: Scan) -> None:
    write_laz(path, scan, ".las")


POINT_WRITERS = {
    "bin": write_bin,
    "npy": write_npy,
    "pcd": write_pcd,
    "pcd_ascii": write_pcd_ascii,
    "pcd_compressed": write_pcd_compressed,
    "ply": write_ply,
    "las": write_las,
    "laz": write_laz,
}


def write_folder(root: Path, recording: Recording, kind: str = "pcd") -> Path:
    """Points named by nanoseconds, poses as TUM lines, the extrinsic as YAML."""
    (root / "points").mkdir(parents=True)
    for scan in recording.scans():
        POINT_WRITERS[kind](root / f"points/{round(scan.time_s * 1e9)}", scan)
    track = recording.poses
    lines = [
        " ".join(f"{v:.17g}" for v in (t, *p, *q))
        for t, p, q in zip(track.times_s, track.positions, track.quaternions, strict=True)
    ]
    (root / "poses.txt").write_text("# t x y z qx qy qz qw\n" + "\n".join(lines) + "\n")
    write_yaml(root / "extrinsic.yaml", recording.extrinsics["LIDAR"])
    return root


def write_yaml(path: Path, matrix: np.ndarray) -> None:
    turn = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    values = {"translation": matrix[:3, 3].tolist(), "rotation": turn.tolist()}
    path.write_text(json.dumps(values))
