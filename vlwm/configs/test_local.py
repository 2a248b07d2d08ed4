"""Local testing: a procedural city, no GPU, no data; minutes on two cores."""

_base_ = "./tokyo_small.py"

dataset = "procedural"
data_root = "data/test_local"
voxel_size = [1.6, 1.6, 5.0]  # 50 x 50 x 30
prepare = dict(
    source="procedural", frames=40, sessions=8, agents=("drone", "rover"), procedural_size_m=800.0
)

tokenizer = dict(max_epochs=4, base_channels=16, embed_dim=32, codebook_size=128, samples_per_gpu=8)
model = dict(
    channels=(32, 48, 64),
    use_tokens=True,
    memory_channels=24,
    memory_levels=2,
    pose_channels=32,
    fusion_channels=8,
)
max_epochs = 2
optimizer = dict(lr=2e-3)
lr_config = dict(warmup_iters=10)
data = dict(samples_per_gpu=4, workers_per_gpu=0, horizons=2, motion_steps=300, fusion_steps=200)
