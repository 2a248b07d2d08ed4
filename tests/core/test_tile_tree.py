"""One walk of a tile set for everybody: the finest tiles, and what is not read by its name."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.tile_tree import NotATileSet, read_tree


def tile(uri: str | None = None, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = {} if uri is None else {"content": {"uri": uri}}
    return {**content, "children": list(children), **more}


def uris(root: dict[str, Any], **more: Any) -> list[str]:
    text = json.dumps({"asset": {"version": "1.1"}, "root": root, **more})
    return [c.uri for c in read_tree(text.encode()).contents]


def test_under_replace_the_leaves_under_add_all() -> None:
    children = tile("a"), tile("b", tile("c"))
    assert uris(tile("p", *children, refine="REPLACE")) == ["a", "c"]
    assert uris(tile("p", *children, refine="ADD")) == ["p", "a", "b", "c"]
    assert uris(tile("p", tile("a", tile("b"), refine="replace"), refine="ADD")) == ["p", "b"]


def test_a_parent_stands_for_children_without_content() -> None:
    assert uris(tile("p", tile(), tile(None, tile()))) == ["p"]
    assert uris(tile("p", tile(), tile(None, tile("deep")))) == ["deep"]


def test_several_contents_old_names_and_outer_sets() -> None:
    assert uris({"contents": [{"uri": "a"}, {"url": "b"}]}) == ["a", "b"]
    old = {"extensions": {"3DTILES_multiple_contents": {"content": [{"uri": "x"}, {"uri": "y"}]}}}
    assert uris(old) == ["x", "y"]
    assert uris(tile("outer.json?v=1", tile("a"))) == ["outer.json?v=1", "a"]


def test_transforms_are_those_from_the_root_down() -> None:
    one, two = [1.0] * 16, [2.0] * 16
    text = json.dumps({"root": tile(None, tile("a", transform=two), transform=one)})
    (content,) = read_tree(gzip.compress(text.encode())).contents
    assert content.transforms == (tuple(one), tuple(two))


@pytest.mark.parametrize(
    ("root", "more", "words"),
    [
        ({"implicitTiling": {}, "content": {"uri": "{level}"}}, {}, "implicit"),
        ({"extensions": {"3DTILES_implicit_tiling": {}}}, {}, "implicit"),
        (tile("a"), {"extensionsRequired": ["X_secret"]}, "needs X_secret, which is not read"),
        ([], {}, "root is not a tile"),
        (tile("a", transform=[1, 2]), {}, "16 numbers"),
        ({"content": {"uri": 5}}, {}, "address of a content"),
        ({"children": {"a": 1}}, {}, "not a list of tiles"),
        ({"content": {"uri": "http://[x"}}, {}, "not a tile set"),
    ],
)
def test_what_is_not_read_is_named(root: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(NotATileSet, match=words):
        read_tree(json.dumps({"root": root, **more}).encode())


def test_an_implicit_branch_is_counted_and_the_rest_is_read() -> None:
    text = json.dumps({"root": tile(None, {"implicitTiling": {}}, tile("a"), refine="ADD")})
    tree = read_tree(text.encode())
    assert [c.uri for c in tree.contents] == ["a"] and "1 tiles that are implicit" in tree.notes[0]


@pytest.mark.parametrize("data", [b"", b"\x00", b"[" * 100_000, b"\x1f\x8bxx", b'"root"', b"null"])
def test_other_bytes_are_no_tile_set(data: bytes) -> None:
    with pytest.raises(NotATileSet):
        read_tree(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["root", "children", "content", "uri", "contents", "transform", "asset"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_any_json_is_a_tree_or_one_sentence(value: Any) -> None:
    try:
        read_tree(json.dumps({"root": value}).encode())
    except NotATileSet as error:
        assert "\n" not in str(error)
