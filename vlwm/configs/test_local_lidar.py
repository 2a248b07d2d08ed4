"""Local testing of observed frames: a procedural city, a 32-beam lidar, minutes on two cores."""

_base_ = "./test_local.py"

data_root = "data/test_local_lidar"
prepare = dict(observe="lidar", lidar_model="HDL-32E")
model = dict(use_tokens=False)  # tokens of the past cannot be kept, and minutes are few
data = dict(observed=True, cache_tokens=False)
