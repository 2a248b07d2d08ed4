"""Train: the run, its two stages, and what they need."""
