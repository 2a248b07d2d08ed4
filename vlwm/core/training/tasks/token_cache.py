"""Cache the codes of frames under a frozen tokenizer in the run folder.

The codes of a frame are a function of the frame alone: they are always computed one frame at a
time, whether they are kept or not, so keeping them changes no bit of a run. The file's name is a
hash of everything they depend on (tokenizer, data, precision, device, torch); a frame's sum is
written after its codes, so a killed process leaves nothing that could be mistaken for codes.

    tokens/KEY.codes    uint16 (frames · 2, h · w), the frame as it is and mirrored
    tokens/KEY.sums     uint32 (frames · 2), CRC-32 of the codes; 0 where there are none
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlwm.core.data.batch import IDENTITY, Batch
from vlwm.core.errors import VlwmError
from vlwm.core.files import make_folder
from vlwm.core.model.world_model import WorldModel
from vlwm.core.training.startup.train_data import TrainData

log = logging.getLogger("vlwm.training")

_VARIANTS = 2  # as it is, mirrored
_SUM_BYTES = 4


class TokenFile:
    """Codes by frame and variant, shared by all processes of a run.

    Written by plain writes, so that a full disk is an error and not a signal; then the file stays
    as it is and the rest is computed as it comes.

    Args:
        folder: its location.
        key: what the codes depend on.
        frames: of the store.
        shape: (h, w) of a frame's codes.
    """

    def __init__(self, folder: Path, key: str, frames: int, shape: tuple[int, int]) -> None:
        self.shape, self.size = shape, 2 * shape[0] * shape[1]
        make_folder(folder)
        count = frames * _VARIANTS
        self._codes = _opened(folder / f"{key}.codes", count * self.size)
        self._sums = _opened(folder / f"{key}.sums", count * _SUM_BYTES)
        self._full = False

    def get(self, row: int, variant: int) -> NDArray[np.uint16] | None:
        """Return codes (h, w) of a frame, or None if they are missing or damaged."""
        place = row * _VARIANTS + variant
        # a sum of 0 marks an entry that was never written
        known = os.pread(self._sums, _SUM_BYTES, place * _SUM_BYTES)
        wanted = int.from_bytes(known, "little")
        if wanted == 0:
            return None
        block = os.pread(self._codes, self.size, place * self.size)
        if len(block) != self.size or zlib.crc32(block) != wanted:
            return None
        return np.frombuffer(block, dtype="<u2").reshape(self.shape)

    def put(self, row: int, variant: int, codes: NDArray[np.integer]) -> None:
        """Keep codes (h, w); a full disk is logged once and costs only time."""
        if self._full:
            return
        # codes first, then their sum: a process killed between them leaves no valid entry
        place = row * _VARIANTS + variant
        block = codes.astype("<u2").tobytes()
        try:
            _write(self._codes, block, place * self.size)
            _write(self._sums, zlib.crc32(block).to_bytes(_SUM_BYTES, "little"), place * _SUM_BYTES)
        except OSError as error:
            self._full = True
            log.warning("tokens are not kept any more: %s", error.strerror)

    def close(self) -> None:
        """Close the files."""
        os.close(self._codes)
        os.close(self._sums)


def _opened(path: Path, size: int) -> int:
    """Open a file of `size` bytes; unwritten parts take no room on the disk."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(handle).st_size != size:
        os.ftruncate(handle, size)
    return handle


def _write(handle: int, block: bytes, offset: int) -> None:
    if os.pwrite(handle, block, offset) != len(block):
        raise OSError(28, "no room for all of it")


class FrameCodes:
    """Codes of the windows of a batch, for training.

    Args:
        model: with a frozen tokenizer.
        data: whose train windows the batches hold.
        folder: where codes are kept; None computes them again each time.
        lead: whether this process removes what other tokenizers left on its machine.
    """

    def __init__(
        self, model: WorldModel, data: TrainData, folder: Path | None, *, lead: bool
    ) -> None:
        self.model, self.data, self.folder, self.lead = model, data, folder, lead
        self._file: TokenFile | None = None

    def of(self, batch: Batch) -> Tensor:
        """Return codes int64 (B, F, h, w) of a batch on the device."""
        self._open(batch.bits.device)
        count, frames = batch.bits.shape[:2]
        height, width = self.model.vae.latent_shape[1:]
        out = np.empty((count, frames, height, width), dtype=np.int64)
        windows, symmetries = batch.index.tolist(), batch.symmetry.tolist()
        for b, (window, symmetry) in enumerate(zip(windows, symmetries, strict=True)):
            # a window is mirrored as a whole, so all of its frames are
            variant = int(symmetry != IDENTITY)
            for f, row in enumerate(self.data.train[window].rows.tolist()):
                out[b, f] = self._codes(batch, (b, f), row, variant)
        return torch.from_numpy(out).to(batch.bits.device, non_blocking=True)

    def _codes(
        self, batch: Batch, place: tuple[int, int], row: int, variant: int
    ) -> NDArray[np.integer]:
        """Return the codes (h, w) of a frame of the batch, from the file or computed."""
        if self._file is None:
            return self._compute(batch, *place)
        kept = self._file.get(row, variant)
        if kept is not None:
            return kept
        codes = self._compute(batch, *place)
        self._file.put(row, variant, codes)
        return codes

    @torch.no_grad()
    def _compute(self, batch: Batch, b: int, f: int) -> NDArray[np.integer]:
        """Compute the codes (h, w) of one frame by itself, so that no batch can change them."""
        one, frame = slice(b, b + 1), slice(f, f + 1)
        symmetry = batch.symmetry[one]
        voxels = self.model.reader.voxels(batch.bits[one, frame], symmetry)
        labels = None if batch.classes is None else batch.classes[one, frame]
        classes = self.model.reader.classes(labels, voxels, symmetry)
        cells = voxels if classes is None else classes
        return self.model.vae.tokenise(cells[:, 0])[0].cpu().numpy()

    def _open(self, device: torch.device) -> None:
        """Open the file at the first batch: only then the precision is known."""
        if self.folder is None or self._file is not None:
            return
        key = self._key(device)
        try:
            self._file = TokenFile(
                self.folder, key, len(self.data.store), self.model.vae.latent_shape[1:]
            )
        except (OSError, VlwmError) as error:
            log.warning("tokens are not kept: %s", error)
            self.folder = None
            return
        if self.lead:
            for path in self.folder.iterdir():
                # codes of an earlier tokenizer are of no use any more
                if path.stem != key:
                    path.unlink(missing_ok=True)

    def _key(self, device: torch.device) -> str:
        """Return a hash of everything that the codes depend on."""
        digest = hashlib.sha256()
        for name, value in self.model.vae.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        # rounding decides between two codes that are equally near: precision is part of the key
        half = torch.is_autocast_enabled(device.type)
        place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        compiled = getattr(self.model.vae.encoder, "_compiled_call_impl", None) is not None
        identity = (
            self.data.data_hash, self.model.grid, torch.__version__, place, compiled,
            str(torch.get_autocast_dtype(device.type)) if half else "float32",
        )  # fmt: skip
        digest.update(repr(identity).encode())
        return digest.hexdigest()[:16]
