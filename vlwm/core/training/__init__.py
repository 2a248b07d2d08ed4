"""The loop, and the small files that stand beside it."""
