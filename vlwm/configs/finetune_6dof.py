"""Any session folders, with position, rotation, velocities and their uncertainty predicted."""

_base_ = "./finetune_tokyo.py"

dataset = "any"
model = dict(pose_dof=6, pose_channels=256)
data = dict(motion_samples=1024, motion_steps=2000)
