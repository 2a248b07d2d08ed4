"""Local testing of observed frames: a procedural city, a 32-beam lidar, minutes on two cores."""

_base_ = "./test_local.py"

data_root = "data/test_local_lidar"
prepare = dict(observe="lidar", lidar_model="HDL-32E")
# tokens of the past cannot be kept, and minutes are few
model = dict(use_tokens=False, fusion_channels=0, completion_channels=16)
data = dict(observed=True, cache_tokens=False, fusion_steps=100, completion_steps=200)
