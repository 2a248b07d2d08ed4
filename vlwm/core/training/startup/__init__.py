"""Prepare the first step: config, data, weights, resume."""
