"""nuScenes with the 6-DoF pose module."""

_base_ = "./finetune_nuscenes.py"

model = dict(pose_dof=6)
