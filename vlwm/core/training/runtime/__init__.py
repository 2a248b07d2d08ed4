"""Process-level concerns: ranks, signals, random state, compilation."""
