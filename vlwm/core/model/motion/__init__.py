"""Predict the vehicle's motion with its uncertainty."""
