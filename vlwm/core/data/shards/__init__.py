"""Turn session folders into shards of bits, and gather the tables of many shards."""
