"""From a City to sessions, packed frames and batches."""
