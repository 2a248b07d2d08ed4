"""Assemble what the readers yield into one City: deduplicate, choose LODs, index by feature.

A city may have more features and triangles than memory holds, and workers are forked while it is
read. So the tables here are arrays in mapped files (`geometry.mapped_arrays`), not Python lists:

- `string_column.Names`: strings, end to end in one file. Invariant: name n is the bytes from end
  n - 1 to end n, and names are only ever added.
- `feature_table.Features`: one row for each feature. Invariants: every column has the same length;
  numbers are given in the order of reading and never change; a feature that is replaced or left
  out keeps its row and is not alive; owners of triangles are non-decreasing.
- `feature_table.FeatureIndex`: numbers by the hash of a key, with open addressing. Invariants: at
  most half of the slots are used, so that every search ends at an empty slot; entry 0 is empty, so
  a slot holds the number plus one; entries of one hash keep the order in which they came, also
  when the table grows. Two keys may share a hash: the caller compares names and bounds.

The test `tests/core/city/assembly/test_storage.py` runs random operations against lists and
dictionaries. Why no database: docs/decisions.md.
"""
