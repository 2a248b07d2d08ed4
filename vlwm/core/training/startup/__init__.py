"""What happens before the first step: config, data, weights, resume."""
