"""Keep sessions as whole objects: shards, and the folders and buckets that hold them."""
