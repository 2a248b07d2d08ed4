"""Assemble what the readers yield into one City: deduplicate, choose LODs, index by feature."""
