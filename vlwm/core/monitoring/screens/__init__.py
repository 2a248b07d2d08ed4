"""Screens of the dashboard next to the main one: help, log, list of runs, zoomed chart."""
