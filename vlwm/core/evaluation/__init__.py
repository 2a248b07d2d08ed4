"""Score forecasts: model and baselines on the same windows, with intervals."""
