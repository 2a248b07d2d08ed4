"""Evaluate one config file as data: it is parsed, never executed.

The users' files are Python in form. What is understood: literals, names defined above, arithmetic,
indexing, `dict list tuple int float str len range min max round abs sum`, `**` in calls and dicts,
comprehensions over such values, f-strings, conditional expressions, `os.path.join/dirname/abspath`
and `__file__`. `import os`/`sys` and `sys.path` lines are ignored. Anything else is refused with
its line. Size, depth and the number of evaluated expressions are bounded.
"""

from __future__ import annotations

import ast
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlwm.core.errors import ConfigError
from vlwm.core.text import safe_text

_LARGEST = 1_000_000
"""items of a value"""
_DEEPEST = 150
_MOST_BITS = 4096
_MOST_STEPS = 100_000
"""expressions that are evaluated in all; a config has hundreds"""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "int": int,
    "float": float,
    "str": str,
    "len": len,
    "min": min,
    "max": max,
    "round": round,
    "abs": abs,
    "sum": sum,
    "range": lambda *a: list(_bounded(range(*a))),
    "os.path.join": os.path.join,
    "os.path.dirname": os.path.dirname,
    "os.path.abspath": os.path.abspath,
}


def _bounded(values: Sequence[Any]) -> Sequence[Any]:
    if len(values) > _LARGEST:
        raise ValueError("too many values")
    return values


class Evaluator:
    """Evaluates one file's statements in order, as data.

    Attributes:
        path: the file.
        names: values by name, as far as the file has been evaluated.
        read: names that lines of the file read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__file__": str(path.resolve())}
        self.read: set[str] = set()
        self._evaluated = 0
        self._depth = 0

    def run(self) -> dict[str, Any]:
        """Return the values of all names of the file.

        Raises:
            ConfigError: the file cannot be read, or a line is more than data.
        """
        try:
            tree = ast.parse(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(
                f"the config cannot be read: {(reason or 'disk error').lower()}",
                where=self.path,
                remedy="save it as UTF-8 text that you may read, or name a preset",
            ) from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            raise ConfigError(
                "not a config file",
                where=f"{self.path}:{line}",
                remedy="fix that line; lines read name = value, as Python writes them",
            ) from error
        for statement in tree.body:
            with self._named(statement):
                self._statement(statement)
        self.names.pop("__file__", None)
        return self.names

    @contextmanager
    def _named(self, node: ast.stmt | ast.expr) -> Iterator[None]:
        """Turn what fails in here into an error that names the line."""
        try:
            yield
        except (
            TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError,
            RecursionError, MemoryError,
        ) as error:  # fmt: skip
            where = f"{self.path}:{node.lineno}"
            raise ConfigError(
                f"cannot evaluate: {safe_text(str(error) or type(error).__name__, 200)}",
                where=where,
                remedy="write the value itself",
            ) from error

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            value = self.value(node.value)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self.value(node.value))
        elif isinstance(node, ast.AugAssign):
            self._assign(node.target, self._augmented(node))
        elif not _ignored(node):
            raise self._refuse(node)

    def _augmented(self, node: ast.AugAssign) -> Any:
        load = ast.copy_location(ast.Name(getattr(node.target, "id", ""), ast.Load()), node)
        return self.value(ast.copy_location(ast.BinOp(load, node.op, node.value), node))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = _weighed(value)
        elif isinstance(target, ast.Subscript):
            self.value(target.value)[self.value(target.slice)] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = list(value)
            if len(parts) != len(target.elts):
                raise self._refuse(target)
            for part, item in zip(target.elts, parts, strict=True):
                self._assign(part, item)
        else:
            raise self._refuse(target)

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression.

        Raises:
            ConfigError: the expression is more than data, or fails; its line is named.
        """
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self._refuse(node)
        self._evaluated += 1
        self._depth += 1
        try:
            with self._named(node):
                if self._depth > _DEEPEST or self._evaluated > _MOST_STEPS:
                    raise ValueError("it is nested too deep or takes too long")
                return _bounded_value(method(node))
        finally:
            self._depth -= 1

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            where = f"{self.path}:{node.lineno}"
            raise ConfigError(
                f"the name {node.id} is not defined above",
                where=where,
                remedy="define it in a line before, or put a text in quotes",
            )
        self.read.add(node.id)
        return self.names[node.id]

    def _list(self, node: ast.List) -> list[Any]:
        return self._items(node.elts)

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._items(node.elts))

    def _set(self, node: ast.Set) -> list[Any]:
        return sorted(set(self._items(node.elts)))

    def _items(self, nodes: Sequence[ast.expr]) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                items.extend(self.value(node.value))
            else:
                items.append(self.value(node))
        return items

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        built: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                built.update(self.value(value))
            else:
                built[self.value(key)] = self.value(value)
        return built

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(left) > _LARGEST or abs(right) > 64):
            raise ValueError("the power is too large")
        if isinstance(node.op, ast.Mult):
            _check_repeat(left, right)
        if isinstance(node.op, ast.Mod) and isinstance(left, (str, bytes)):
            raise ValueError("use an f-string")
        if type(node.op) not in _BINARY:
            raise self._refuse(node)
        return _BINARY[type(node.op)](left, right)

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            raise self._refuse(node)
        return _UNARY[type(node.op)](self.value(node.operand))

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise self._refuse(node)
            right = self.value(right_node)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _boolop(self, node: ast.BoolOp) -> Any:
        result: Any = None
        for value in node.values:
            result = self.value(value)
            if bool(result) is isinstance(node.op, ast.Or):
                return result
        return result

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        return self.value(node.value)[self.value(node.slice)]

    def _slice(self, node: ast.Slice) -> slice:
        parts = (node.lower, node.upper, node.step)
        return slice(*(None if p is None else self.value(p) for p in parts))

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self.value(v)) for v in node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> str:
        if node.format_spec is not None:
            raise self._refuse(node)
        return str(_weighed(self.value(node.value)))

    def _call(self, node: ast.Call) -> Any:
        name = _unparsed(node.func)
        if name not in _CALLS:
            raise self._refuse(node)
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            keywords.update(value if keyword.arg is None else {keyword.arg: value})
        _weighed(keywords)
        return _CALLS[name](*_weighed(self._items(node.args)), **keywords)

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        return self._comprehend(node.generators, lambda: self.value(node.elt))

    def _generatorexp(self, node: ast.GeneratorExp) -> list[Any]:
        return self._comprehend(node.generators, lambda: self.value(node.elt))

    def _dictcomp(self, node: ast.DictComp) -> dict[Any, Any]:
        pairs = self._comprehend(
            node.generators, lambda: (self.value(node.key), self.value(node.value))
        )
        return dict(pairs)

    def _comprehend(
        self, generators: Sequence[ast.comprehension], make: Callable[[], Any]
    ) -> list[Any]:
        if not generators:
            return [make()]
        first, rest = generators[0], generators[1:]
        items: list[Any] = []
        outer_names = dict(self.names)
        for item in self.value(first.iter):
            self._assign(first.target, item)
            if all(self.value(test) for test in first.ifs):
                items.extend(_bounded(self._comprehend(rest, make)))
        self.names = outer_names
        return items

    def _refuse(self, node: ast.AST) -> ConfigError:
        text = _unparsed(node)
        text = text if len(text) <= 60 else text[:57] + "..."
        return ConfigError(
            f"a config is data and is not executed, so this cannot be part of it: "
            f"{safe_text(text)}",
            where=f"{self.path}:{getattr(node, 'lineno', 1)}",
            remedy="write the value itself",
        )


def _check_repeat(left: Any, right: Any) -> None:
    for sequence, count in ((left, right), (right, left)):
        repeats = isinstance(sequence, (str, list, tuple)) and isinstance(count, int)
        if repeats and len(sequence) * count > _LARGEST:
            raise ValueError("too many values")


def _ignored(node: ast.stmt) -> bool:
    """Return True for docstrings, `pass`, `import os`/`sys`/`pathlib`, and `sys.path` lines."""
    if isinstance(node, ast.Pass):
        return True
    if isinstance(node, ast.Import):
        return all(alias.name in ("os", "sys", "os.path") for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__",)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return _unparsed(node.value.func).startswith("sys.path.")
    return False


def _unparsed(node: ast.AST) -> str:
    """Return an expression as it is written; nothing of one that is nested without end."""
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return "..."


def _bounded_value(value: Any) -> Any:
    """Return a value that does not grow line by line: a = a + a, or n = n * n.

    Raises:
        ValueError: it is too large.
    """
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError("the number is too large")
    if isinstance(value, (str, bytes, list, tuple, dict)) and len(value) > _LARGEST:
        raise ValueError("too many values")
    return value


def _weighed(value: Any) -> Any:
    """Return a value whose parts are not too many, each counted as often as it is there.

    Raises:
        ValueError: they are: [[0] * 1000000] * 1000000.
    """
    stack, count = [value], 0
    while stack:
        part = stack.pop()
        count += 1
        inner = part.values() if isinstance(part, dict) else part
        if isinstance(inner, (list, tuple)) or isinstance(part, dict):
            count += len(inner)
            if count > _LARGEST:
                raise ValueError("too many values")
            stack.extend(i for i in inner if isinstance(i, (list, tuple, dict)))
    return value
