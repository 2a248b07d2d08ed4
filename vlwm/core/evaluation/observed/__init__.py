"""Scores of forecasts from an observed past: zones, the way ahead, calibration per zone."""
