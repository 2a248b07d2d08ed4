"""Release a run as a benchmark: model, data, splits, protocol and scores in one folder.

    the files of `exported_folder`
    data/*.shard, data/splits.json  every session that the scores were made on, packed
    baselines.safetensors           parameters of the baselines, as the run fitted them
    benchmark.json                  what belongs together: data hash, baselines, attribution
    PROTOCOL.md                     both tracks, the metrics, how to repeat and how to compare

`vlwm eval FOLDER` (or user/name on the Hub) scores the model and every baseline again on these data
and compares the result with scores.json.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlwm.core.data.packed_store import PackedStore
from vlwm.core.errors import DataError
from vlwm.core.evaluation.baselines.fitted import FittedBaselines
from vlwm.core.evaluation.evaluator import Scores, prepare_subject
from vlwm.core.evaluation.load import EvalData, Opened, baselines_of, open_splits_of
from vlwm.core.export.exported_folder import export_folder, open_exported, read_tensors
from vlwm.core.export.file_names import (
    BASELINES,
    BENCHMARK,
    CARD,
    DATA,
    PROTOCOL,
    SCORES,
    SPLITS,
    WEIGHTS,
)
from vlwm.core.export.trained_model import TrainedModel, open_checkpoint
from vlwm.core.files import atomic_path, make_folder, read_json, write_json
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.version import __version__

TOLERANCE = 1e-3
"""largest difference of a score between two machines that still counts as the same table"""

_PROTOCOL = """# Protocol

Four past frames in, six future frames out; {dt:g} s between frames. A frame is the occupancy of
{shape} cells of {cell} m in the ego frame of the vehicle: x ahead, y left, z up from the terrain.
Each future frame is scored cell by cell in its own true ego frame.

| track | a forecast is given |
|---|---|
| predicted | past frames, past poses, past terrain heights under the vehicle; nothing else |
| plan | the same and the true future ego frames |

Numbers of different tracks are never compared. Scores per horizon: IoU over all cells, and IoU over
the cells above the true ground of their column (structure IoU). Windows of one place and time are a
cluster; intervals are bootstrapped over {clusters} clusters. Split `{split}`, by area
(data/splits.json): {windows} windows. Thresholds and baselines are fitted on train and validation
alone. The whole protocol: docs/evaluation.md of vlwm {version}.

## Repeat the table

    vlwm eval FOLDER

FOLDER is this folder or its name on the Hub. The command scores the model and every baseline on the
data in here, and reports how far the result is from scores.json. Differences up to {tolerance:g}
count as the same table.

## Add a model

Train on split `train`, choose thresholds on `val`, report the test split of both tracks, or say
which track was left out:

    vlwm train --data FOLDER/data
    vlwm eval checkpoints --data FOLDER/data

## Data

{attribution}

Data hash: `{data_hash}`.
"""


def is_release(folder: Path) -> bool:
    """Return True for a folder that `write_benchmark` wrote."""
    return (folder / BENCHMARK).is_file()


def write_benchmark(run: Path, out: Path, *, licence: str | None = None) -> list[Path]:
    """Write a run with its data as a benchmark into `out`; returns the files.

    Args:
        run: run folder or checkpoint that `vlwm eval` has scored on its own data.
        out: a new folder, or one that an export wrote before.
        licence: see `export_folder`.

    Raises:
        DataError: the data are missing, damaged, or others than those of the scores.
    """
    trained = open_checkpoint(run, "cpu")
    checkpoint = Path(trained.provenance.source)
    home = RunFolder(checkpoint.parent)
    root = home.find_data(trained.config.data_root)
    store = PackedStore.open(root, trained.grid)
    if store.damaged:
        raise DataError(
            f"{len(store.damaged)} frames of the data are damaged", where=store.damaged[0][0],
            remedy="prepare the data again: a benchmark has none",
        )  # fmt: skip
    files = export_folder(trained, out, licence=licence)
    sheet = read_json(out / SCORES)
    if sheet["data"]["hash"] != store.data_hash:
        raise DataError(
            "scores.json was made on other data than those of the run", where=root,
            remedy=f"run: vlwm eval {home.path}",
        )  # fmt: skip
    make_folder(out / DATA)
    for shard in store.shards:
        _copy(shard, out / DATA / shard.name)
        files.append(out / DATA / shard.name)
    own = home.splits_json if home.splits_json.is_file() else root / SPLITS
    _copy(own, out / DATA / SPLITS)
    skeleton = _write_baselines(checkpoint, out / BASELINES)
    text = _protocol(trained, store, sheet)
    _write(out / PROTOCOL, text)
    card = (out / CARD).read_text(encoding="utf-8")
    _write(out / CARD, f"{card}\n{text.replace('# Protocol', '## Protocol', 1)}")
    about = {"data_hash": store.data_hash, "attribution": store.attribution, "baselines": skeleton}
    write_json(out / BENCHMARK, about)  # last: without it the release is not finished
    return [*files, *(out / n for n in (f"{DATA}/{SPLITS}", BASELINES, PROTOCOL, BENCHMARK))]


def _write_baselines(checkpoint: Path, path: Path) -> dict[str, Any] | None:
    """Write the tensors of a run's baselines; return the rest, None for an older checkpoint."""
    fitted = baselines_of(load_checkpoint(checkpoint))
    tensors: dict[str, torch.Tensor] = {}
    skeleton = None if fitted is None else _without_tensors(fitted.content(), "", tensors)
    with atomic_path(path) as temporary:
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary)
    return skeleton


def _protocol(trained: TrainedModel, store: PackedStore, sheet: Mapping[str, Any]) -> str:
    return _PROTOCOL.format(
        dt=trained.config.frame_dt_s,
        shape=" x ".join(map(str, trained.grid.shape)),
        cell=" x ".join(f"{v:g}" for v in trained.grid.cell_m),
        clusters=sheet["n_clusters"],
        windows=sheet["n_windows"],
        split=sheet["split"],
        version=__version__,
        tolerance=TOLERANCE,
        attribution=store.attribution or "A procedural city of vlwm.",
        data_hash=store.data_hash,
    )


def open_release(folder: Path, data: EvalData) -> Opened:
    """Return the model of an exported folder with data to score it on: its own, or others.

    Args:
        folder: of `export_folder`, with data where it is a benchmark.
        data: windows; `root` in place of the folder's own data.

    Raises:
        DataError: neither the folder nor `data` names sessions, or the data were changed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = open_exported(folder, device)
    about = read_json(folder / BENCHMARK) if is_release(folder) else {}
    own = data.root is None
    if own and not about:
        raise DataError(
            "this model was exported without its data", where=folder,
            remedy="name data to score it on: --data DIR",
        )  # fmt: skip
    limit = data.max_windows
    if own and not limit:
        # as many windows as were published: fewer are taken evenly apart, the same ones again
        limit = int(read_json(folder / SCORES)["n_windows"])
    data = replace(data, root=data.root or folder / DATA, max_windows=limit)
    store, splits = open_splits_of(trained.config, data)
    if own and store.data_hash != about["data_hash"]:
        raise DataError(
            "the data of this benchmark are not those that its scores were made on",
            where=folder / DATA, remedy="fetch the folder again",
        )  # fmt: skip
    fitted = None
    if about.get("baselines") is not None:
        tensors, _ = read_tensors(folder / BASELINES)
        fitted = FittedBaselines.of(_with_tensors(about["baselines"], tensors))
    fitted = fitted or data.fitted
    subject = prepare_subject(
        trained.model, store, splits, data.split, trained.config, thresholds=trained.thresholds,
        fitted=fitted, tri_state=data.tri_state, max_windows=data.max_windows, device=device,
        on_fit=data.on_fit,
    )  # fmt: skip
    return Opened(subject, folder / WEIGHTS, folder, fitted_here=fitted is None)


def reproduction(published: Mapping[str, Any], sheet: Scores) -> tuple[int, float] | None:
    """Return how many scores two sheets share and their largest difference.

    None where the sheets are of other windows, so that nothing can be compared.
    """
    if any(published.get(key) != sheet.get(key) for key in ("split", "n_windows", "horizons_s")):
        return None
    pairs = list(_pairs(published["scores"], sheet["scores"]))
    gaps = [math.inf if (a is None) != (b is None) else abs((a or 0.0) - (b or 0.0))
            for a, b in pairs]  # fmt: skip
    return len(gaps), max(gaps, default=math.inf)


def _pairs(a: object, b: Any) -> Iterator[tuple[float | None, float | None]]:
    """Yield the numbers of two trees at the same places; a missing one is None."""
    if isinstance(a, Mapping):
        for key, value in a.items():
            yield from _pairs(value, b.get(key) if isinstance(b, Mapping) else None)
    elif isinstance(a, list):
        other = b if isinstance(b, list) and len(b) == len(a) else [None] * len(a)
        for one, two in zip(a, other, strict=True):
            yield from _pairs(one, two)
    elif a is None or isinstance(a, int | float):
        yield a, b


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return plain values with {"tensor": name} in place of tensors, which go into `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {k: _without_tensors(v, f"{name}.{k}".lstrip("."), tensors)
                for k, v in value.items()}  # fmt: skip
    return value


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the values that `_without_tensors` was given."""
    if isinstance(value, dict) and set(value) == {"tensor"}:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {k: _with_tensors(v, tensors) for k, v in value.items()}
    return value


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
