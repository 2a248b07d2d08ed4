"""Metrics, health checks, status and provenance of a run."""
