"""Draw on a terminal: charts of characters, keys, and only the lines that changed."""
