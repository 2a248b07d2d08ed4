"""Figures: windows, maps, curves, videos."""
