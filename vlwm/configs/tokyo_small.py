"""Tokyo on a CPU: 100 x 100 x 60 cells of 0.8 x 0.8 x 2.5 m and a narrower network."""

_base_ = "./finetune_tokyo.py"

load_from = None
voxel_size = [0.8, 0.8, 2.5]  # 100 x 100 x 60

tokenizer = dict(
    max_epochs=10,
    lr=2e-3,
    samples_per_gpu=8,
    base_channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    embed_dim=64,
)
model = dict(
    channels=(64, 64, 96),
    num_heads=4,
    layers_per_level=1,
    use_tokens=False,  # on a CPU they cost more than they give (docs/decisions.md)
    memory_channels=0,  # a refinement net gets no weight from validation (docs/benchmarks.md)
    fusion_planes=True,  # straight walls to a few centimetres (docs/benchmarks.md)
    fusion_channels=16,
    pose_ridge=True,  # with few sessions the network alone is worse (docs/benchmarks.md)
    freeze_pose=True,  # it has learned from all poses by then, and would learn them by heart
)
optimizer = dict(lr=2e-3)
lr_config = dict(warmup_iters=20)
data = dict(samples_per_gpu=2, workers_per_gpu=1, horizons=1)
