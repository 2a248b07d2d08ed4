"""The scene tokenizer: OccWorld's VQ-VAE."""
