"""Tokyo from what a 32-beam lidar saw: past frames observed, future frames the truth."""

_base_ = "./finetune_tokyo.py"

data_root = "data/tokyo_lidar"
prepare = dict(observe="lidar", lidar_model="HDL-32E")
data = dict(observed=True, cache_tokens=False, fusion_steps=100)
# attention over the coarsest map of the completion earns its place (docs/benchmarks.md)
model = dict(fusion_channels=0, completion_channels=64, completion_blocks=3)
