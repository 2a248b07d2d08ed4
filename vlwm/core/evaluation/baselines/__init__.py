"""Forecasts without learning: what a learned model is compared with."""
