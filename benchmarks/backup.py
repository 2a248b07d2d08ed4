"""What `vlwm train --backup` costs a run, by processor time.

    python benchmarks/backup.py [--mb 200] [--minutes 5]

One thread steps: matrix products, as a CPU run does, or short Python work, as a run does that feeds
a GPU. The backup's own thread copies a checkpoint to a folder and reads it back.
Printed: processor time of a step with and without it, and the backup's own for a checkpoint, with
its share of a core at one checkpoint in `--minutes`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlwm.core.store.backup import Backup


def product() -> None:
    """One step of a run on the CPU."""
    square = np.ones((256, 256))
    for _ in range(10):
        square = square @ square * 1e-3


def feeding() -> None:
    """One step of a run that feeds a GPU: Python that needs the interpreter's lock."""
    sum(i * i for i in range(40_000))


def steps_ms(step: Callable[[], None], until: threading.Event | None, count: int) -> float:
    """Mean processor time of a step of this thread, over `count` steps or until an event."""
    done, begin = 0, time.thread_time()
    while done < count or (until is not None and not until.is_set()):
        step()
        done += 1
    return 1e3 * (time.thread_time() - begin) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=200, help="size of the checkpoint")
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=5.0, help="between two checkpoints")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        run.mkdir()
        backup, spent = Backup(run, (Path(place) / "safe").as_uri()), list[float]()

        def write(done: threading.Event) -> None:
            for _ in range(args.copies):
                (run / ".new").write_bytes(os.urandom(1 << 20) * args.mb)
                os.replace(run / ".new", run / "last.pth")
                begin = time.thread_time()
                backup.copy_if_new()
                spent.append(time.thread_time() - begin)
            done.set()

        for name, step in (("a step on the CPU", product), ("a step that feeds a GPU", feeding)):
            alone, beside = [], []
            for _ in range(2):  # in turns, so that a busy machine disturbs both
                alone.append(steps_ms(step, None, args.steps))
                done = threading.Event()
                thread = threading.Thread(target=write, args=(done,))
                thread.start()
                beside.append(steps_ms(step, done, args.steps))
                thread.join()
            a, b = np.mean(alone), np.mean(beside)
            more = 100 * (b / a - 1)
            print(f"{name}: {a:.3f} ms alone, {b:.3f} ms next to the backup, {more:+.1f} %")
        begin = time.thread_time()
        for _ in range(200):
            backup.copy_if_new()
        look_ms = 1e3 * (time.thread_time() - begin) / 200
        copy_s = float(np.median(spent))
        share = 100 * copy_s / (60 * args.minutes)
        print(
            f"{args.mb} MB: {copy_s:.2f} s of processor time, {copy_s / args.mb * 1e3:.2f} s a GB"
        )
        print(f"at a checkpoint every {args.minutes:g} minutes: {share:.2f} % of a core")
        print(f"a look without a new checkpoint: {look_ms:.2f} ms")


if __name__ == "__main__":
    main()
