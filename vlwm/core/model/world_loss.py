"""Compute the loss of the world model: its motion, its forecast, its memory and its tokens.

One half of the windows is conditioned on the true motion and the other half on the predicted one,
so that one network serves both tracks; which half a window is in is a function of its index.

A tokenizer that is not frozen trains along: by the round trip of one frame of each window, and,
where tokens alone make the forecast, by what it decodes from its own roll-outs. No other gradient
reaches it, so that the codes do not drift towards what is easy to predict.

Axes: B windows, K of the H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlwm.core.data.batch import Batch, apply_symmetry
from vlwm.core.model.forward import RefinementInput, Scene, ego_of_past
from vlwm.core.model.loss_report import LossReport, LossTerm
from vlwm.core.model.losses import OccupancyLoss, occupancy_loss, token_loss, token_weight
from vlwm.core.model.memory.branch import Walls
from vlwm.core.model.memory.completion_net import completion_loss
from vlwm.core.model.memory.fusion import fusion_loss
from vlwm.core.model.memory.warp import resampled_memory
from vlwm.core.model.motion.motion_head import ExtraMotion, Motion
from vlwm.core.model.motion.vehicle_state import true_state
from vlwm.core.model.semantic import class_loss, occupancy_logit
from vlwm.core.model.world_model import WorldModel

_FUSION_LAYERS = 32
"""height layers of a future frame that a step trains the fusion on"""
_HASH_INDEX = 2654435761
_HASH_SYMMETRY = 40503
_HASH_STEP = 97911613
"""odd multipliers (Knuth's and two primes) that scatter windows and steps over the integers"""


class WorldLoss:
    """The composite loss of a `WorldModel`, as means over the windows of a batch.

    Args:
        model: the model, in training or evaluation mode.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def __call__(
        self,
        batch: Batch,
        step: int = 0,
        *,
        codes: Tensor | None = None,
        extra: ExtraMotion | None = None,
        forecast: Tensor | None = None,
    ) -> LossReport:
        """Return the sum of all `terms`, with the graph of all of them."""
        return LossReport.of(self.terms(batch, step, codes=codes, extra=extra, forecast=forecast))

    def terms(
        self,
        batch: Batch,
        step: int = 0,
        *,
        codes: Tensor | None = None,
        extra: ExtraMotion | None = None,
        forecast: Tensor | None = None,
    ) -> Iterator[LossTerm]:
        """Yield the terms one by one; no term depends on the graph of another.

        Args:
            step: in training, decides which frames, layers and horizons the step learns from.
            codes: int64 (B, F, h, w) of all frames, where they are computed already.
            extra: windows without frames, for the motion's term.
            forecast: logits (B, H, X, Y, Z) of every future frame where they are computed already,
                of a window of `planned_half` along the plan; no gradient comes from them.
        """
        model, weights = self.model, self.model.config.loss
        voxels = model.reader.voxels(batch.bits, batch.symmetry)  # (B, F, X, Y, Z)
        known = self._known(batch)
        classes = model.reader.classes(batch.classes, voxels, batch.symmetry)
        labels = None  # what has no label counts nowhere
        if classes is not None and batch.classes is not None:
            labels = apply_symmetry(batch.classes, batch.symmetry)
        # a frozen tokenizer's codes may come from the cache
        if codes is None and model.config.model.use_tokens:
            codes = model.codes(voxels if classes is None else classes)
        tokens = None if codes is None else model.embedded(codes)
        past = batch.past(model.history)
        free = model.reader.free_space(past)
        walls = model.walls(past, voxels)
        scene = Scene(past, voxels, tokens, free, model.reader.known_past(past), classes, walls)
        seed = self._sample_seed(batch, step)
        horizons = self._horizons(seed, every=forecast is not None)  # (B, K)
        out = model(scene, batch.plan(model.history), planned_half(batch), horizons)
        pose = self._pose_loss(out.motion, batch, extra)
        yield LossTerm("pose", pose, weights.pose_weight)
        del pose  # else its graph would live as long as the frames'
        if forecast is None and model.refinement_net is not None:
            yield from self._future_terms(scene, out.inputs, horizons, labels, known)
        elif forecast is not None:
            for horizon, logits in zip(horizons.unbind(1), forecast.unbind(1), strict=True):
                yield self._occupancy_term(logits, horizon, horizons.shape[1], voxels, known)
        if model.config.model.use_memory:
            if model.config.model.fusion_channels:  # a mere count learns in pre-training alone
                yield self._fusion_term(voxels, batch, seed, known, walls, weights.fusion_weight)
            if model.completes:
                yield self._completion_term(voxels, batch, seed, known)
        if codes is not None and tokens is not None:
            token = self._token_loss(codes, scene, out.ego, known)
            yield LossTerm("token", token, weights.token_weight)
            if not model.config.model.freeze_vae:
                yield LossTerm("round_trip", self._round_trip(scene, seed, labels, known))

    def _known(self, batch: Batch) -> Tensor | None:
        """Return uint8 (B, F, X, Y, Z), the cells whose truth is known; None: all of them."""
        if batch.known is None:
            return None
        return self.model.reader.voxels(batch.known, batch.symmetry)

    def _pose_loss(self, motion: Motion, batch: Batch, extra: ExtraMotion | None) -> Tensor:
        head = self.model.motion_head
        # poses after the past, at the same horizons as the motion
        truth = true_state(batch.poses[:, self.model.history :], head.size)  # (B, H, D)
        loss = head.loss(motion, truth)
        if extra is not None:
            loss = (1 - extra.share) * loss + extra.share * head.loss_of_windows(extra.windows)
        return loss

    def _future_terms(
        self,
        scene: Scene,
        inputs: Iterator[RefinementInput],
        horizons: Tensor,
        labels: Tensor | None,
        known: Tensor | None,
    ) -> Iterator[LossTerm]:
        """Yield the terms of the future frames at the horizons (B, K): occupancy, then classes.

        Args:
            labels: uint8 (B, F, X, Y, Z), classes as the data have them; None without the task.
            known: uint8 (B, F, X, Y, Z); None: every cell.
        """
        model, count = self.model, horizons.shape[1]
        for horizon, chunk in zip(horizons.unbind(1), inputs, strict=True):
            logits = self._refined(chunk)
            yield self._occupancy_term(logits, horizon, count, scene.voxels, known)
            del logits  # its graph is not needed while the classes are learned
            if labels is not None:
                kinds = _pick(labels, model.history + horizon)
                mask = None if known is None else _pick(known, model.history + horizon)
                logits = model.class_logits(scene, chunk)
                loss = class_loss(logits, kinds, model.free_class, mask)
                yield LossTerm("class", loss, model.config.loss.class_weight, count)

    def _occupancy_term(
        self, logits: Tensor, horizon: Tensor, count: int, voxels: Tensor, known: Tensor | None
    ) -> LossTerm:
        """Return the term of a future frame (B, X, Y, Z) of logits, at the horizon (B,)."""
        truth = _pick(voxels, self.model.history + horizon)  # (B, X, Y, Z)
        mask = None if known is None else _pick(known, self.model.history + horizon)
        loss = occupancy_loss(logits, truth, self.model.config.loss, mask)
        return LossTerm("occupancy", loss.total, count=count, numbers=_numbers(loss))

    def _sample_seed(self, batch: Batch, step: int) -> Tensor:
        """Return pseudo-random int64 (B,) of window, symmetry and, in training, step.

        They are the same for any microbatch and after any resume, since they draw from no
        generator.
        """
        step = step if self.model.training else 0
        windows = (batch.index + 1) * _HASH_INDEX + batch.symmetry * _HASH_SYMMETRY
        return windows + step * _HASH_STEP

    def _horizons(self, seed: Tensor, *, every: bool = False) -> Tensor:
        """Return the future frames int64 (B, K) that the occupancy loss reads.

        All of them, or in training `data.horizons` of them, evenly apart from a random first one.
        """
        future = self.model.future
        # a few horizons in each step cost a fraction, and in time all are seen
        few = min(self.model.config.data.horizons, future) if self.model.training else 0
        if every or not few:
            return torch.arange(future, device=seed.device).expand(len(seed), -1)
        # other bits of the seed than those that choose frame and layers
        first = (seed >> 5) % future
        apart = torch.arange(few, device=first.device) * future // few
        return (first[:, None] + apart) % future

    def _refined(self, inputs: RefinementInput) -> Tensor:
        """Return `WorldModel.refined`, recomputed in the backward pass where memory is short."""
        if self.model.checkpoint_activations and torch.is_grad_enabled():
            logits: Tensor = checkpoint(self.model.refined, inputs, use_reentrant=False)
            return logits
        return self.model.refined(inputs)

    def fusion_term(self, batch: Batch, step: int) -> LossTerm:
        """Return the loss of the fusion alone, as pre-training minimises it: unweighted."""
        voxels = self.model.reader.voxels(batch.bits, batch.symmetry)
        seed, known = self._sample_seed(batch, step), self._known(batch)
        walls = self.model.walls(batch.past(self.model.history), voxels)
        return self._fusion_term(voxels, batch, seed, known, walls, weight=1.0)

    def completion_term(self, batch: Batch, step: int) -> LossTerm:
        """Return the loss of the completion alone, as pre-training minimises it: unweighted."""
        voxels = self.model.reader.voxels(batch.bits, batch.symmetry)
        seed = self._sample_seed(batch, step)
        return self._completion_term(voxels, batch, seed, self._known(batch), weight=1.0)

    def _completion_term(
        self,
        voxels: Tensor,
        batch: Batch,
        seed: Tensor,
        known: Tensor | None,
        weight: float | None = None,
    ) -> LossTerm:
        """Return the term of the completed map on one future frame of each window.

        Under the true motion, as the fusion's. Where nothing refines it, it is the forecast, and
        its numbers are those of the occupancy.
        """
        model, loss = self.model, self.model.config.loss
        past = batch.past(model.history)
        free = model.reader.free_space(past)
        assert free is not None
        horizon = (seed >> 11) % model.future  # (B,)
        ego = _pick(batch.plan(model.history).ego, horizon)
        frames = (voxels[:, : model.history], free, ego_of_past(past), ego)
        logits, _ = model.observed_branch().completed(*frames, model.column_logit)
        truth = _pick(voxels, model.history + horizon)  # (B, X, Y, Z)
        mask = None if known is None else _pick(known, model.history + horizon)
        counted = None if mask is None else mask.permute(0, 3, 1, 2) > 0
        value = completion_loss(logits, truth.permute(0, 3, 1, 2), counted)
        numbers = {"loss/completion": value}
        if model.refinement_net is None and model.training:
            forecast = logits.detach().permute(0, 2, 3, 1)
            numbers |= _numbers(occupancy_loss(forecast, truth, loss, mask))
        return LossTerm("completion", value, weight or loss.fusion_weight, numbers=numbers)

    def _fusion_term(
        self,
        voxels: Tensor,
        batch: Batch,
        seed: Tensor,
        known: Tensor | None,
        walls: Walls | None,
        weight: float,
    ) -> LossTerm:
        """Return the term of the fusion on some layers of one future frame of each window.

        Under the true motion, so that the fusion does not learn to make up for a wrong one. Where
        nothing refines it, it is the forecast, and its numbers are those of the occupancy of these
        layers.
        """
        model = self.model
        depth = voxels.shape[-1]
        horizon = (seed >> 11) % model.future  # (B,)
        ego = _pick(batch.plan(model.history).ego, horizon)  # (B, 4)
        # L evenly spaced layers from a random first one, and their neighbours below and above
        count = min(_FUSION_LAYERS, depth)
        spaced = torch.arange(count, device=seed.device) * depth // count
        layers = (((seed >> 17) % depth)[:, None] + spaced) % depth  # (B, L)
        if model.config.data.observed:
            value = self._observed_fusion_loss(voxels, batch, horizon, layers, known)
            return LossTerm("fusion", value, weight)
        stacked = [(layers + offset).clamp(0, depth - 1) for offset in (-1, 0, 1)]
        past = batch.past(model.history)
        below, memory, above = resampled_memory(
            voxels[:, : model.history], ego_of_past(past), ego, model.grid,
            torch.cat(stacked, 1), model.reader.known_past(past),
        ).split(count)  # fmt: skip
        truth = _layers(_pick(voxels, model.history + horizon), layers)  # (B, L, X, Y)
        planes = None
        if walls is not None:
            rows = torch.arange(len(ego), device=ego.device)
            planes = model.memory.planes(walls, rows, ego).layers(layers)
        near = (below.mean(), above.mean())
        logits = model.memory.fusion(memory, near, planes)  # (B, L, X, Y)
        counted = memory.seen()
        if known is not None:
            counted = counted & (_layers(_pick(known, model.history + horizon), layers) > 0)
        value = fusion_loss(logits, truth, counted)
        numbers = {"loss/fusion": value}
        if model.refinement_net is None and model.training:
            forecast = occupancy_loss(logits.detach(), truth, model.config.loss, counted)
            numbers |= _numbers(forecast)
        return LossTerm("fusion", value, weight, numbers=numbers)

    def _observed_fusion_loss(
        self, voxels: Tensor, batch: Batch, horizon: Tensor, layers: Tensor, known: Tensor | None
    ) -> Tensor:
        """Return the loss of the fusion of an observed past on layers int64 (B, L) of a frame."""
        model = self.model
        past = batch.past(model.history)
        free = model.reader.free_space(past)
        assert free is not None  # the branch is that of an observed past
        truth = _layers(_pick(voxels, model.history + horizon), layers)  # (B, L, X, Y)
        counted = None if known is None else _layers(_pick(known, model.history + horizon), layers)
        ego = _pick(batch.plan(model.history).ego, horizon)
        occupied = voxels[:, : model.history]
        branch = model.observed_branch()
        return branch.loss(occupied, free, ego_of_past(past), ego, layers, truth, counted)

    def _round_trip(
        self, scene: Scene, seed: Tensor, labels: Tensor | None, known: Tensor | None
    ) -> Tensor:
        """Return the tokenizer's own loss, on one frame of each window, another in each step."""
        vae, config = self.model.vae, self.model.config
        frame = (seed >> 3) % scene.voxels.shape[1]
        truth = _pick(scene.voxels, frame)
        classes = None if scene.classes is None else _pick(scene.classes, frame)
        quantized = vae.quantize(vae.encode(truth if classes is None else classes))
        mask = None if known is None else _pick(known, frame)
        logits = vae.decode(quantized.z_q)
        total: Tensor = config.tokenizer.vq_weight * quantized.vq_loss
        if labels is not None:
            wanted = _pick(labels, frame)
            kinds = class_loss(logits[..., :-1], wanted, self.model.free_class, mask)
            total = total + config.loss.class_weight * kinds
            logits = occupancy_logit(logits)
        return total + occupancy_loss(logits, truth, config.loss, mask).total

    def _token_loss(
        self, codes: Tensor, scene: Scene, ego: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Return the cross-entropy of each frame's codes, predicted from the true ones before it.

        Args:
            codes: int64 (B, F, h, w) of all frames.
            ego: (B, H, 4), where the future frames are.
            known: uint8 (B, F, X, Y, Z); a code counts as its cells are known. None: all the same.
        """
        assert scene.tokens is not None
        track = torch.cat([ego_of_past(scene.past), ego], dim=1)  # (B, F, 4)
        logits, _ = self.model.transform(scene.tokens[:, :-1], track)
        weight = None
        if known is not None:
            weight = token_weight(known[:, 1:], (codes.shape[2], codes.shape[3]))
        return token_loss(logits, codes[:, 1:], weight)  # frame f predicts the codes of frame f + 1


def planned_half(batch: Batch) -> Tensor:
    """Return bool (B,): windows conditioned on the true motion, by index and symmetry alone."""
    # a middle bit of the product: the lowest ones follow the index too closely
    mixed = (batch.index * _HASH_INDEX + batch.symmetry * _HASH_SYMMETRY) >> 7
    return (mixed & 1).bool()


def _pick(values: Tensor, place: Tensor) -> Tensor:
    """Return the one of values (B, F, …) at each window's place (B,)."""
    return values[torch.arange(len(values), device=values.device), place]


def _layers(frames: Tensor, layers: Tensor) -> Tensor:
    """Return the height layers int64 (B, L) of frames (B, X, Y, Z): (B, L, X, Y)."""
    planes = frames.permute(0, 3, 1, 2)  # (B, Z, X, Y)
    return planes.gather(1, layers[..., None, None].expand(-1, -1, *planes.shape[2:]))


def _numbers(loss: OccupancyLoss) -> dict[str, Tensor]:
    """Return what is logged of the frames of one horizon."""
    return {
        "loss/occupancy": loss.total,
        "loss/focal": loss.focal,
        "loss/dice": loss.dice,
        "loss/mean": loss.mean,
        **loss.statistics(),
    }
