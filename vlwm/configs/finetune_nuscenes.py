"""Ground-vehicle baseline: nuScenes, 200 x 200 x 16 cells, occupied or free."""

_base_ = "./finetune_tokyo.py"

dataset = "nuscenes"
data_root = "data/nuscenes"
point_cloud_range = [-40.0, -40.0, -1.0, 40.0, 40.0, 5.4]
voxel_size = [0.4, 0.4, 0.4]
model = dict(pose_channels=256)  # no measured reason for another motion than the default
data = dict(motion_samples=1024, motion_steps=2000)
