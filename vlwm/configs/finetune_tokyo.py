"""Primary aerial training: Tokyo PLATEAU, drone and rover, 200 x 200 x 121 cells."""

dataset = "tokyo"
data_root = "data/tokyo_gazebo"
load_from = "pretrained/occworld/latest.pth"

# Voxel grid
point_cloud_range = [-40.0, -40.0, -2.0, 40.0, 40.0, 150.0]
voxel_size = [0.4, 0.4, 1.25]  # 200 x 200 x 121

# Temporal
history_frames = 4
future_frames = 6

# Training
optimizer = dict(type="AdamW", lr=1e-4, weight_decay=0.01)
lr_config = dict(policy="CosineAnnealing", min_lr=1e-6, warmup="linear", warmup_iters=100)
max_epochs = 50
grad_clip = dict(max_norm=35, norm_type=2)
tokenizer = dict(max_epochs=10, lr=1e-3)

# Model
model = dict(
    type="TransVQVAE",
    freeze_vae=True,
    freeze_transformer=False,
    freeze_pose=False,
    pose_channels=48,  # a wider one learns the motion of a few thousand windows by heart
)

# Data
data = dict(samples_per_gpu=3, workers_per_gpu=8, motion_samples=256, motion_steps=1600)
