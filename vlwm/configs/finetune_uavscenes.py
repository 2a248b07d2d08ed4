"""Real aerial data: UAVScenes."""

_base_ = "./finetune_tokyo.py"

dataset = "uavscenes"
data_root = "data/uavscenes"
model = dict(pose_channels=256)  # no measured reason for another motion than the default
data = dict(motion_samples=1024, motion_steps=2000)
