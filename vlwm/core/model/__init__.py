"""Define the world model: tokenizer, transformer, memory, motion, losses, checkpoints."""
