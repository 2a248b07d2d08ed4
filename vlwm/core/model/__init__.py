"""Tokenizer, transformer, ego-motion memory, losses, checkpoints."""
