"""What is trained: tokenizer, world model, pre-training phases."""
