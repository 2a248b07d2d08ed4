"""Real aerial data: UAVScenes."""

_base_ = "./finetune_tokyo.py"

dataset = "uavscenes"
data_root = "data/uavscenes"
