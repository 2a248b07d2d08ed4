"""Frozen dataclasses from plain values: unknown keys and wrong types are named.

Lists become tuples and integers become floats where the field has that type;
nothing else is converted.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args, get_origin

from vlwm.core.errors import ConfigError, nearest


def build(cls: type, values: Mapping[str, Any], prefix: str, where: str) -> Any:
    """Return an instance of the dataclass `cls`.

    Args:
        values: of its fields, by name; fields that are dataclasses take mappings.
        prefix: of the names in errors, such as 'optimizer.'.
        where: the file or source, for errors.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    hints = _hints(cls)
    built = {}
    for key, value in values.items():
        if key not in hints:
            raise unknown_key(prefix + key, prefix, hints, where)
        built[key] = _convert(hints[key], value, prefix + key, where)
    return cls(**built)


@lru_cache(maxsize=64)
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def unknown_key(full: str, prefix: str, known: Iterable[str], where: str) -> ConfigError:
    """Return the error for a key nobody knows, naming the nearest known one."""
    close = nearest(full.removeprefix(prefix), known)
    remedy = f"did you mean {prefix}{close}?" if close else "remove it; docs/training.md lists all"
    return ConfigError(f"unknown config key {full}", where=where, remedy=remedy)


def _convert(hint: object, value: object, key: str, where: str) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a dict", where)
        return build(typing.cast(type, hint), value, key + ".", where)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(get_args(hint)[0], value, key, where)
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, key, where)
    return _convert_scalar(typing.cast(type, hint), value, key, where)


def _convert_tuple(
    args: tuple[object, ...], value: object, key: str, where: str
) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _wrong(key, value, "a list", where)
    if args[-1] is Ellipsis:
        return tuple(_convert(args[0], v, key, where) for v in value)
    if len(args) != len(value):
        raise _wrong(key, value, f"{len(args)} numbers", where)
    return tuple(_convert(a, v, key, where) for a, v in zip(args, value, strict=True))


def _convert_scalar(hint: type, value: object, key: str, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    names = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}
    raise _wrong(key, value, names.get(hint, str(hint)), where)


def _wrong(key: str, value: object, expected: str, where: str) -> ConfigError:
    return ConfigError(
        f"{key} = {value!r} should be {expected}",
        where=where,
        remedy="docs/training.md lists every key with its default",
    )
