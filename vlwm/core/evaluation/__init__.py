"""Scores, rivals without learning, intervals and pictures."""
