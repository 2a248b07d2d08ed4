"""Tokyo from what a 32-beam lidar saw: past frames observed, future frames the truth."""

_base_ = "./finetune_tokyo.py"

data_root = "data/tokyo_lidar"
prepare = dict(observe="lidar", lidar_model="HDL-32E")
data = dict(observed=True, cache_tokens=False, fusion_steps=100)
model = dict(fusion_channels=0, completion_channels=64)
