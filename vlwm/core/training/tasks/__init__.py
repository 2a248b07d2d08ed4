"""Define the tasks: tokenizer, world model, pre-training phases."""
