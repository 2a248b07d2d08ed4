"""Simulate lidar and camera on the city's mesh."""
