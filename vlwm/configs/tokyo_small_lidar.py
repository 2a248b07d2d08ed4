"""Tokyo from what a 32-beam lidar saw, on a CPU: 100 x 100 x 60 cells."""

_base_ = "./tokyo_small.py"

data_root = "data/tokyo_lidar_small"
prepare = dict(observe="lidar", lidar_model="HDL-32E")
data = dict(observed=True, cache_tokens=False, fusion_steps=100, completion_steps=0)
model = dict(
    fusion_channels=0,
    fusion_planes=False,
    completion_channels=64,
    completion_blocks=3,  # attention over its coarsest map earns its place (docs/benchmarks.md)
)
