"""Choose thresholds and residual weight on validation."""
