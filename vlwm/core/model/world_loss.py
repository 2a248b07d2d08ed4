"""What the world model is trained on: its forecast, its motion, its memory and its tokens.

One half of the windows is conditioned on the true motion and the other on the predicted one, so
that one network serves both tracks; which half a window is in is a function of its index.

A tokenizer that is not frozen is trained along: by the round trip of one frame of each window, and,
where tokens alone make the forecast, by what it decodes from its own roll-outs. No other gradient
reaches it, so that the codes do not run after what is easy to foresee.

Axes: B batch, K of the H future frames, X, Y, Z cells.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlwm.core.data.batch import Batch, Past
from vlwm.core.model.loss_report import LossReport, Take, as_it_is
from vlwm.core.model.losses import OccupancyLoss, occupancy_loss, token_loss
from vlwm.core.model.memory.fusion import fusion_loss
from vlwm.core.model.memory.warp import resampled_memory
from vlwm.core.model.motion.motion_head import MoreMotion, Motion
from vlwm.core.model.motion.vehicle_state import true_state
from vlwm.core.model.world_model import Said, WorldModel

_FUSION_LAYERS = 32  # of a future frame, that a step trains the fusion on


class WorldLoss:
    """The composite loss of a `WorldModel`.

    Args:
        model: the model, in training or evaluation mode.

    Attributes:
        draw: in training, number of the draw of what a step learns from.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model, self.draw = model, 0

    def __call__(
        self,
        batch: Batch,
        codes: Tensor | None = None,
        take: Take = as_it_is,
        more: MoreMotion | None = None,
        forecast: Tensor | None = None,
    ) -> LossReport:
        """The composite over a batch; means over its windows.

        Args:
            codes: int64 (B, F, h, w) of all frames, where they are known already.
            take: given each summand as soon as it is known. One that sends the gradient back at
                once lets a single summand's graph live at a time: none depends on another's.
            more: windows of which the pose loss takes the motion alone.
            forecast: logits (B, H, X, Y, Z) of every future frame where they are known already, of
                a window of `planned_half` along the plan; no gradient comes from them.
        """
        model, history = self.model, self.model.history
        voxels = model.voxels(batch.bits, batch.symmetry)
        past, plan = batch.past(history), batch.plan(history)
        if codes is None and model.config.model.use_tokens:
            codes = model.codes(voxels)
        tokens = None if codes is None else model.embedded(codes)
        motion = model.motion(past, tokens)
        pose, weights = self._pose_loss(motion, batch, more), model.config.loss
        total = take(weights.pose_weight * pose)
        planned = planned_half(batch)
        ego = torch.where(planned[:, None, None], plan.ego, motion.ego.detach())
        if forecast is None:
            horizons, maps = self._horizons(batch), model.roll_out(past, tokens, ego)
            given = model.given(voxels, past, ego, motion, planned, maps, horizons)
            each = (self._checkpointed(*what) for what in given)
        else:
            horizons, each = self._every(batch), iter(forecast.unbind(1))
        frames = []
        for horizon, logits in zip(horizons.unbind(1), each, strict=True):
            frame = occupancy_loss(logits, _pick(voxels, history + horizon), weights)
            total = total + take(frame.total / horizons.shape[1])
            frames.append(replace(frame, total=frame.total.detach()))
        parts = {
            name: torch.stack([getattr(f, name) for f in frames]).mean()
            for name in ("focal", "dice", "mean")
        }
        parts["pose"] = pose.detach()
        if model.config.model.use_memory:
            fusion = self._fusion(voxels, batch)
            total = total + take(weights.fusion_weight * fusion)
            parts["fusion"] = fusion.detach()
        if codes is not None and tokens is not None:
            token = self._token_loss(codes, tokens, past, ego)
            total = total + take(weights.token_weight * token)
            parts["token"] = token.detach()
            if not model.config.model.freeze_vae:
                trip = self._round_trip(voxels, batch)
                total = total + take(trip)
                parts["round_trip"] = trip.detach()
        return LossReport(total, parts, _stats(frames))

    def _pose_loss(self, motion: Motion, batch: Batch, more: MoreMotion | None) -> Tensor:
        pose = self.model.pose
        truth = true_state(batch.poses[:, self.model.history :], pose.size)
        loss = pose.loss(motion, truth)
        if more is not None:
            loss = (1 - more.share) * loss + more.share * pose.loss_of(more)
        return loss

    def _chance(self, batch: Batch) -> Tensor:
        """Numbers without pattern int64 (B,), of each window and of the draw: however a batch is
        parted, and wherever a run is resumed, they are the same."""
        draw = self.draw if self.model.training else 0
        return (batch.index + 1) * 2654435761 + batch.symmetry * 40503 + draw * 97911613

    def _horizons(self, batch: Batch) -> Tensor:
        """Future frames int64 (B, K) that a window is judged on: all, or in training a few of them,
        evenly apart."""
        few = min(self.model.config.data.horizons, self.model.future) if self.model.training else 0
        if not few:
            return self._every(batch)
        first = (self._chance(batch) >> 5) % self.model.future
        apart = torch.arange(few, device=first.device) * self.model.future // few
        return (first[:, None] + apart) % self.model.future

    def _every(self, batch: Batch) -> Tensor:
        """All future frames int64 (B, H)."""
        count = len(batch.index)
        return torch.arange(self.model.future, device=batch.index.device).expand(count, -1)

    def _checkpointed(self, said: Said, condition: Tensor, tokens: Tensor | None) -> Tensor:
        """`WorldModel.logits`, made again for the backward pass where the config says so."""
        if self.model.config.model.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(self.model.logits, said, condition, tokens, use_reentrant=False)
        return self.model.logits(said, condition, tokens)

    def fusion(self, batch: Batch) -> Tensor:
        """Loss of the fused memory on some layers of one future frame of each window.

        Under the true motion, so that fusing does not have to make up for a wrong one. Which frame
        and which layers is drawn anew in each step.
        """
        return self._fusion(self.model.voxels(batch.bits, batch.symmetry), batch)

    def _fusion(self, voxels: Tensor, batch: Batch) -> Tensor:
        model, depth, chance = self.model, voxels.shape[-1], self._chance(batch)
        past, horizon = batch.past(model.history), (chance >> 11) % model.future
        ego = _pick(batch.plan(model.history).ego, horizon)
        count = min(_FUSION_LAYERS, depth)
        spaced = torch.arange(count, device=chance.device) * depth // count
        layers = (((chance >> 17) % depth)[:, None] + spaced) % depth
        beside = [(layers + step).clamp(0, depth - 1) for step in (-1, 0, 1)]
        below, memory, above = resampled_memory(
            voxels[:, : model.history], model.past_ego(past), ego, model.grid, torch.cat(beside, 1)
        ).split(count)
        truth = _pick(voxels, model.history + horizon).permute(0, 3, 1, 2)
        truth = truth.gather(1, layers[..., None, None].expand(-1, -1, *truth.shape[2:]))
        logits = model.fusion(memory, (below.mean(), above.mean()))
        return fusion_loss(logits, truth, memory.seen())

    def _round_trip(self, voxels: Tensor, batch: Batch) -> Tensor:
        """The tokenizer's own loss, on one frame of each window, drawn anew in each step."""
        vae, weights = self.model.vae, self.model.config.loss
        truth = _pick(voxels, (self._chance(batch) >> 3) % voxels.shape[1])
        said = vae.quantize(vae.encode(truth))
        occupancy = occupancy_loss(vae.decode(said.z_q), truth, weights)
        return occupancy.total + self.model.config.tokenizer.vq_weight * said.vq_loss

    def _token_loss(self, codes: Tensor, tokens: Tensor, past: Past, ego: Tensor) -> Tensor:
        """Cross-entropy of each frame's codes from the true ones before it."""
        track = torch.cat([self.model.past_ego(past), ego], dim=1)
        logits, _ = self.model.transform(tokens[:, :-1], track)
        return token_loss(logits, codes[:, 1:])


def planned_half(batch: Batch) -> Tensor:
    """bool (B,): the windows conditioned on the true motion, by index and symmetry alone."""
    mixed = (batch.index * 2654435761 + batch.symmetry * 40503) >> 7
    return (mixed & 1).bool()


def _pick(values: Tensor, place: Tensor) -> Tensor:
    """Of values (B, F, ...) the one at each sample's place (B,)."""
    return values[torch.arange(len(values), device=values.device), place]


def _stats(frames: list[OccupancyLoss]) -> dict[str, Tensor]:
    def over(name: str) -> Tensor:
        return torch.stack([getattr(f, name) for f in frames])

    return {
        "pred/mean": over("pred_mean").mean(),
        "pred/min": over("pred_min").min(),
        "pred/max": over("pred_max").max(),
        "pred/occupancy_rate": over("occupancy_rate").mean(),
        "target/mean": over("target_mean").mean(),
        "loss/occupancy": over("total").mean(),
    }
