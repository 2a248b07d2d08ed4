"""The six commands: each turns options into a config, calls the core once, and prints."""
