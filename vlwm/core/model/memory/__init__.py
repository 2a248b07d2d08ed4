"""Ego-motion memory: warp past frames into future ego frames and fuse them."""
