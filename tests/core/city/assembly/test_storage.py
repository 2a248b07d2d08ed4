"""Random operations on the mapped tables agree with plain lists and dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.city.assembly.feature_table import FeatureIndex, Features
from vlwm.core.city.assembly.string_column import Names
from vlwm.core.geometry.mapped_arrays import Scratch

SLOTS = 8
# keys whose hashes fall on few slots of any table, so that runs of entries wrap around its end
KEYS = st.one_of(
    st.integers(0, 3).map(lambda k: k * 1024 + SLOTS - 1),
    st.integers(-5, 5),
    st.tuples(st.text(max_size=2), st.integers(0, 1)),
)
TEXTS = st.text(st.characters(codec=None), max_size=6)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("scratch"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, st.booleans()), max_size=60))
def test_an_index_gives_the_numbers_of_a_hash_in_order(
    scratch: Scratch, calls: list[tuple[object, bool]]
) -> None:
    index, expected = FeatureIndex(scratch, SLOTS), dict[int, list[int]]()
    for number, (key, looked_up) in enumerate(calls):
        index.add(key, number)
        expected.setdefault(hash(key), []).append(number)
        if looked_up:
            index.let_go()
            assert index.find(key) == expected[hash(key)]
    for key, _ in calls:
        assert index.find(key) == expected[hash(key)]
    assert index.find("a key that nobody entered") == expected.get(
        hash("a key that nobody entered"), []
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, max_size=30), st.data())
def test_names_are_a_list_of_strings(
    scratch: Scratch, texts: list[str], data: st.DataObject
) -> None:
    names = Names(scratch)
    for text in texts:
        names.append(text)
    keep = np.array([data.draw(st.booleans()) for _ in texts], bool)
    kept = Names(scratch)
    kept.extend(names, keep)
    assert list(names) == texts == names and len(names) == len(texts)
    assert list(kept) == [t for t, k in zip(texts, keep, strict=True) if k]
    if texts:
        at = data.draw(st.integers(-len(texts), len(texts) - 1))
        assert names[at] == texts[at] and names[at:] == texts[at:]
    with pytest.raises(IndexError):
        _ = names[len(texts)]


ROWS = st.lists(st.tuples(st.sampled_from(["append", "put", "read"]), st.integers(0, 99)))


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_rows_are_an_array_that_grows(scratch: Scratch, calls: list[tuple[str, int]]) -> None:
    rows, expected = scratch.rows(np.int64, (2,)), list[tuple[int, int]]()
    for call, value in calls:
        if call == "append":
            added = [(value, k) for k in range(value % 4)]
            rows.append(added)
            expected += added
        elif expected and call == "put":
            expected[value % len(expected)] = (value, -1)
            rows.put(value % len(expected), (value, -1))
        elif expected:
            start = value % len(expected)
            assert rows.read(start, len(expected)).tolist() == [list(r) for r in expected[start:]]
    assert len(rows) == len(expected)
    assert rows.array().tolist() == [list(row) for row in expected]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["building", "road"]), st.booleans()), max_size=20))
def test_what_is_left_out_neither_stands_nor_is_a_road(
    scratch: Scratch, given_features: list[tuple[str, bool]]
) -> None:
    table = Features(scratch)
    for number, (kind, _) in enumerate(given_features):
        low = np.array([number, 0.0, 0.0])
        assert table.add(f"n{number}", kind, number % 3, np.stack([low, low + 1])) == number
    chosen = np.array([out for _, out in given_features], bool)
    table.leave_out(chosen)
    for number, (kind, out) in enumerate(given_features):
        assert table.kind_of(number) == kind and table.lod_of(number) == number % 3
        assert table.is_alive(number) is not out and table.name_of(number) == f"n{number}"
    if given_features:
        roads = np.array([kind == "road" for kind, _ in given_features])
        assert table.roads().tolist() == (roads & ~chosen).tolist()
        assert table.standing().tolist() == (~roads & ~chosen).tolist()
