"""`vlwm export`: a trained model as a folder for others, on the Hub where asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlwm.commands.options import export as opt

if TYPE_CHECKING:
    from vlwm.core.export.hub import Upload


def export(
    run: opt.Run = Path("checkpoints"),
    out: opt.Out = Path("exported"),
    licence: opt.Licence = None,
    onnx: opt.Onnx = False,
    benchmark: opt.Benchmark = False,
    push_to_hub: opt.PushToHub = None,
    public: opt.Public = False,
    dry_run: opt.DryRun = False,
    json_: opt.Json = False,
) -> None:
    """Export a trained model: weights, config, thresholds, scores, picture and model card.

    Examples: [cyan]vlwm export ./test_out exported[/],
    [cyan]vlwm export checkpoints exported --push-to-hub user/name --dry-run[/],
    [cyan]vlwm export checkpoints release --benchmark --onnx[/]
    """
    from vlwm.commands.shared.output import emit_json, note

    files = _write(run, out, licence, onnx=onnx, benchmark=benchmark)
    sizes: list[dict[str, Any]] = [{"file": str(p), "bytes": p.stat().st_size} for p in files]
    for path in files:
        note(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")
    upload = None
    if push_to_hub is not None:
        upload = _upload(out, push_to_hub, private=not public, dry_run=dry_run)
    if json_:
        emit_json({"folder": str(out), "files": sizes, "upload": _plain(upload)})
    else:
        print(f"exported: {out}   use: vlwm.load({str(out)!r})")


def _write(run: Path, out: Path, licence: str | None, *, onnx: bool, benchmark: bool) -> list[Path]:
    """Write the folder with what was asked for; returns its files."""
    from vlwm.core.export.exported_folder import export_folder
    from vlwm.core.export.trained_model import open_checkpoint

    trained = open_checkpoint(run, "cpu")
    if onnx:
        from vlwm.core.export.onnx.graphs import check_exportable

        check_exportable(trained.model)  # before anything is written
    if benchmark:
        from vlwm.core.export.benchmark import write_benchmark

        files = write_benchmark(run, out, licence=licence)
    else:
        files = export_folder(trained, out, licence=licence)
    if onnx:
        from vlwm.core.export.file_names import ONNX
        from vlwm.core.export.onnx.writer import export_onnx

        files += export_onnx(trained, out / ONNX)
    return files


def _upload(folder: Path, repo: str, *, private: bool, dry_run: bool) -> Upload:
    """Show the files and sizes, then upload them unless this is a dry run."""
    from vlwm.commands.shared.output import note
    from vlwm.core.export.hub import plan_upload, push_folder

    plan = plan_upload(folder, repo, private=private)
    note(f"{'private' if private else 'public'} repository {repo}:")
    for name, size in plan.files:
        note(f"  {size / 1e6:8.2f} MB  {name}")
    note(f"  {plan.total_bytes / 1e6:8.2f} MB  in all")
    if dry_run:
        note("dry run: nothing was uploaded")
        return plan
    done = push_folder(folder, repo, private=private)
    note(f"uploaded: {done.url}")
    return done


def _plain(upload: Upload | None) -> dict[str, Any] | None:
    if upload is None:
        return None
    return {
        "repo": upload.repo,
        "private": upload.private,
        "bytes": upload.total_bytes,
        "url": upload.url,
    }
