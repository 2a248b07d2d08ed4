"""The configuration: frozen dataclasses in the users' vocabulary, one meaning and unit per field.

The resolved config is plain JSON: it is stored in the run folder and in every checkpoint
(`config.load` reads it back).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from vlwm.core.config.data_schema import DataConfig, PrepareConfig
from vlwm.core.config.require import require


@dataclass(frozen=True)
class OptimizerConfig:
    """Stage 2's optimizer; stage 1 shares everything but `lr`."""

    type: str = "AdamW"
    """only AdamW"""
    lr: float = 1e-4
    """peak learning rate of stage 2"""
    weight_decay: float = 0.01
    """decoupled weight decay of matrices and kernels; norms, biases and embeddings have none"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay of the first and second moment"""

    def __post_init__(self) -> None:
        require(self.type == "AdamW", "optimizer.type", self.type, "use 'AdamW'")
        require(self.lr > 0, "optimizer.lr", self.lr, "use a rate above 0, such as 1e-4")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over steps: linear warm-up, then a cosine down to `min_lr`."""

    policy: str = "CosineAnnealing"
    """only CosineAnnealing"""
    min_lr: float = 1e-6
    """rate at the last step"""
    warmup: str = "linear"
    """'linear' or 'none'"""
    warmup_iters: int = 100
    """steps of the warm-up"""

    def __post_init__(self) -> None:
        good = self.policy == "CosineAnnealing"
        require(good, "lr_config.policy", self.policy, "use 'CosineAnnealing'")
        good = self.warmup in ("linear", "none")
        require(good, "lr_config.warmup", self.warmup, "use 'linear' or 'none'")


@dataclass(frozen=True)
class GradClipConfig:
    """Gradient clipping."""

    max_norm: float = 35.0
    """largest norm of all gradients together"""
    norm_type: float = 2.0
    """order of the norm"""


@dataclass(frozen=True)
class TokenizerConfig:
    """Stage 1: OccWorld's VQ-VAE (arXiv 2311.16038, section 3.2), its size and its training."""

    max_epochs: int = 50
    """epochs of stage 1"""
    lr: float = 1e-3
    """peak learning rate of stage 1"""
    samples_per_gpu: int = 8
    """frames in one step of stage 1"""
    epoch_samples: int = 0
    """frames of one epoch of stage 1, others in each; 0 takes all of the train split"""
    base_channels: int = 64
    """channels of the first convolution"""
    channel_mult: tuple[int, ...] = (1, 2, 4)
    """channels of each resolution as multiples of `base_channels`; each step halves the map"""
    num_res_blocks: int = 2
    """residual blocks per resolution"""
    embed_dim: int = 128
    """channels of a token"""
    codebook_size: int = 512
    """number of codes"""
    expansion: int = 8
    """embedding channels of one height slice"""
    num_classes: int = 2
    """2: empty and occupied; 18: the classes of Occ3D-nuScenes, which the data must have"""
    vq_weight: float = 1.0
    """weight of the quantizer's loss"""
    commitment: float = 0.25
    """weight of the encoder's pull towards its code"""
    ema_decay: float = 0.95
    """decay of the moving sums that the codes follow; 0 trains the codes by gradient"""
    revive_below: float = 0.05
    """a code whose moving count falls below this is restarted from an encoder output"""
    warmup_fresh_iters: int = 200
    """steps in which only freshly made layers move after OccWorld's weights were loaded in part"""

    def __post_init__(self) -> None:
        good = self.codebook_size > 1 and self.embed_dim > 0
        require(good, "tokenizer.codebook_size", self.codebook_size, "use at least 2 codes")
        value = self.epoch_samples
        require(value >= 0, "tokenizer.epoch_samples", value, "use 0 for all, or a number")
        require(self.num_classes >= 2, "tokenizer.num_classes", self.num_classes, "use 2 or more")


@dataclass(frozen=True)
class ModelConfig:
    """Stage 2: transformer over tokens, ego-motion memory, pose module."""

    type: str = "TransVQVAE"
    """only TransVQVAE"""
    freeze_vae: bool = True
    """the tokenizer is not trained in stage 2; otherwise its round trip is trained too"""
    freeze_transformer: bool = False
    """the transformer is not trained in stage 2"""
    freeze_pose: bool = False
    """the pose module is not trained in stage 2"""
    use_tokens: bool = True
    """let the token branch reach the forecast"""
    use_memory: bool = True
    """let the ego-motion memory reach the forecast"""
    channels: tuple[int, ...] = (128, 256, 512)
    """channels of the transformer's resolutions, the middle last"""
    num_heads: int = 8
    """attention heads; OccWorld's weights are made for 8"""
    layers_per_level: int = 6
    """temporal attention blocks per resolution"""
    memory_channels: int = 64
    """channels of the refinement net's first resolution; 0 for none: what the past frames say,
    fused or completed, is the forecast then"""
    memory_levels: int = 3
    """resolutions of the memory network"""
    fusion_channels: int = 8
    """channels of the network that fuses the past frames; 0 (observed past only) counts evidence"""
    fusion_planes: bool = False
    """let the fusion read walls that are fitted as planes to all past frames; an observed past,
    which has only parts of walls, is fused without them; the walls are fitted on the processor"""
    completion_channels: int = 0
    """channels of the network that completes what an observed past did not see; 0 for none"""
    completion_blocks: int = 0
    """blocks of attention over the coarsest map of that network, tokens of 8 × 8 columns"""
    pose_channels: int = 256
    """width of the pose module"""
    pose_ridge: bool = False
    """mix the pose module with a ridge regression; validation chooses the shares"""
    pose_dof: int = 3
    """3: planar position and heading; 6: position, rotation, velocities, uncertainty"""
    checkpoint_activations: bool = False
    """recompute activations in the backward pass: less memory, more time"""

    def __post_init__(self) -> None:
        require(self.type == "TransVQVAE", "model.type", self.type, "use 'TransVQVAE'")
        require(self.pose_dof in (3, 6), "model.pose_dof", self.pose_dof, "use 3 or 6")
        good = self.use_tokens or self.use_memory
        require(good, "model.use_tokens", False, "keep use_tokens or use_memory")
        good = self.freeze_vae or self.use_tokens
        require(good, "model.freeze_vae", False, "without use_tokens nothing trains it: keep True")
        value = self.fusion_channels
        require(value >= 0, "model.fusion_channels", value, "use 0 or more")
        value = self.completion_channels
        good = value >= 0 and value % 16 == 0
        require(good, "model.completion_channels", value, "use 0 or a multiple of 16")
        value = self.completion_blocks
        good = value == 0 or (value > 0 and self.completion_channels > 0)
        require(good, "model.completion_blocks", value, "use 0, or more with completion_channels")
        value = self.memory_channels
        good = value > 0 or (value == 0 and self.use_memory and not self.use_tokens)
        remedy = "use 1 or more; 0 only without use_tokens, which nothing else reads"
        require(good, "model.memory_channels", value, remedy)


@dataclass(frozen=True)
class LossConfig:
    """The composite loss (design of the guide; evidence for the relative mean in docs)."""

    focal_alpha: float = 0.99
    """weight of occupied voxels in the focal loss"""
    focal_gamma: float = 2.0
    """focusing exponent of the focal loss"""
    focal_weight: float = 1.0
    """weight of the focal loss"""
    dice_weight: float = 1.0
    """weight of the dice loss"""
    mean_weight: float = 1.0
    """weight of mean-matching; the guide's 10 belongs to its 'absolute' form"""
    mean_mode: str = "relative"
    """'relative': squared log of the ratio of means; 'absolute': squared difference"""
    token_weight: float = 1.0
    """weight of the token cross-entropy"""
    pose_weight: float = 0.1
    """weight of the pose loss"""
    fusion_weight: float = 1.0
    """weight of the fused memory's cross-entropy"""
    class_weight: float = 1.0
    """weight of the cross-entropy of classes, where tokenizer.num_classes is above 2"""

    def __post_init__(self) -> None:
        good = self.mean_mode in ("relative", "absolute")
        require(good, "loss.mean_mode", self.mean_mode, "use 'relative' or 'absolute'")
        good = 0.0 <= self.focal_alpha <= 1.0
        require(good, "loss.focal_alpha", self.focal_alpha, "use a number from 0 to 1")


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which stay."""

    interval: int = 5
    """epochs between periodic checkpoints"""
    minutes: float = 5.0
    """minutes between writes of last.pth"""
    max_keep_ckpts: int = -1
    """periodic checkpoints kept; -1 keeps all"""


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation while training, and the test at the end."""

    interval: int = 1
    """epochs between validations"""
    max_windows: int = 200
    """windows of one validation while training, at least one of every 120 m tile; 0 takes all"""
    final_max_windows: int = 0
    """windows of the test at the end of training; 0 takes all"""


@dataclass(frozen=True)
class LogConfig:
    """Intervals at which numbers are written."""

    interval: int = 10
    """steps between lines of metrics.jsonl and TensorBoard points"""


@dataclass(frozen=True)
class HealthConfig:
    """Thresholds of the health checks (docs/troubleshooting.md names the remedies)."""

    collapse_ratio: float = 0.1
    """mean prediction below this share of the target's mean is a collapse"""
    collapse_loss: float = 1e-4
    """occupancy loss below this within the first epoch is a collapse"""
    saturation_ratio: float = 10.0
    """mean prediction above this multiple of the target's mean is saturation"""
    spike_factor: float = 5.0
    """a loss above this multiple of its running mean is a spike"""
    dead_code_share: float = 0.5
    """a larger share of unused codes is a warning"""
    bad_steps: int = 5
    """skipped steps in a row after which the run rolls back"""
    max_rollbacks: int = 3
    """roll-backs after which the run gives up"""
    rollback_lr_factor: float = 0.5
    """factor of the learning rate at each roll-back"""
    stalled_seconds: float = 120.0
    """a heartbeat older than this is stalled"""
    starving_share: float = 0.3
    """a larger share of the step spent waiting for data is starvation"""
    disk_free_gb: float = 5.0
    """warn when the run folder's disk has less free space than this"""


@dataclass(frozen=True)
class Config:
    """Everything that shapes a run."""

    name: str = "unnamed"
    """preset or file stem"""
    dataset: str = "tokyo"
    """'tokyo', 'procedural', 'nuscenes', 'uavscenes' or 'any' (session folders of any origin)"""
    data_root: str = "data/tokyo_gazebo"
    """folder of the session folders"""
    point_cloud_range: tuple[float, float, float, float, float, float] = (
        -40.0, -40.0, -2.0, 40.0, 40.0, 150.0,
    )  # fmt: skip
    """grid bounds in the ego frame, metres: x, y, z from; x, y, z to"""
    voxel_size: tuple[float, float, float] = (0.4, 0.4, 1.25)
    """cell size, metres"""
    history_frames: int = 4
    """past frames in"""
    future_frames: int = 6
    """future frames out"""
    frame_dt_s: float = 0.5
    """seconds between frames"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_config: ScheduleConfig = field(default_factory=ScheduleConfig)
    max_epochs: int = 50
    """epochs of stage 2"""
    grad_clip: GradClipConfig = field(default_factory=GradClipConfig)
    load_from: str | None = None
    """OccWorld's released weights or a vlwm checkpoint to start from; None starts from scratch"""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    checkpoint_config: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log_config: LogConfig = field(default_factory=LogConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    amp: bool = True
    """mixed precision where the device has it (bf16 from SM 8.0, else fp16); never on CPU"""
    seed: int = 42
    """seed of weights, order and augmentation"""

    def __post_init__(self) -> None:
        lower, upper = self.point_cloud_range[:3], self.point_cloud_range[3:]
        good = all(a < b for a, b in zip(lower, upper, strict=True))
        value = self.point_cloud_range
        require(good, "point_cloud_range", value, "give x, y, z from, then larger x, y, z to")
        good = all(size > 0 for size in self.voxel_size)
        require(good, "voxel_size", self.voxel_size, "use sizes above 0 m")
        good = self.history_frames >= 2
        require(good, "history_frames", self.history_frames, "use at least 2 past frames")
        good = self.future_frames >= 1
        require(good, "future_frames", self.future_frames, "use at least 1 future frame")
        good = not (self.semantic and self.data.observed)
        require(good, "data.observed", True, "with classes, use False: a sensor sees no classes")
        good = self.dataset in ("tokyo", "procedural", "nuscenes", "uavscenes", "any")
        require(good, "dataset", self.dataset, "use tokyo, procedural, nuscenes, uavscenes or any")
        good = bool(self.model.fusion_channels or self.data.observed)
        require(good, "model.fusion_channels", 0, "without data.observed, use 1 or more")
        good = bool(self.model.memory_channels) or not self.semantic
        require(good, "model.memory_channels", 0, "with classes, use 1 or more: it trains them")
        good = bool(self.model.memory_channels or self.model.completion_channels)
        good = good or not self.data.observed
        remedy = "with data.observed, use 1 or more, or completion_channels: a count learns nothing"
        require(good, "model.memory_channels", 0, remedy)
        good = not self.model.completion_channels or self.data.observed
        channels = self.model.completion_channels
        require(good, "model.completion_channels", channels, "without data.observed, use 0")

    @property
    def data_roots(self) -> tuple[str, ...]:
        """Every data folder: those of data.train, else data_root."""
        return tuple(source.root for source in self.data.train) or (self.data_root,)

    @property
    def semantic(self) -> bool:
        """True where the classes of cells are forecast, not only that they are occupied."""
        return self.tokenizer.num_classes > 2

    @property
    def window_frames(self) -> int:
        """Frames of one window: past and future."""
        return self.history_frames + self.future_frames

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; tuples become lists."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
