"""Forecast from an observed past on a CPU, without a gradient, column by column."""
