"""The 18 classes of Occ3D-nuScenes, with the field's protocol at 1, 2, 3 s and ours."""

_base_ = "./finetune_nuscenes.py"

tokenizer = dict(num_classes=18)
