"""Make text of others (names in files, catalogues, configs) safe to print, draw or put in HTML.

Times in words are here too: the training log, the dashboard and the commands share them.
"""

from __future__ import annotations

import json
import math
import re
import time
import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that steer a terminal, turn the writing direction, or cannot be encoded"""
_JOINERS = "\u200c\u200d"
_LONGEST = 300


def safe_text(text: object, longest: int = _LONGEST) -> str:
    """Return one printable line: every character that is not printable is written as its escape.

    Control characters (ESC, BEL, C1, line ends), bidirectional and other invisible marks, lone
    surrogates and unassigned code points become `\\x1b`, `\\u202e` and the like. Letters of every
    script stay as they are.

    Args:
        text: anything; `str` of it is taken.
        longest: characters that are kept; a longer text ends in "…".
    """
    raw = str(text)
    kept = raw if len(raw) <= longest else raw[: longest - 1] + "…"
    if kept.isascii() and kept.isprintable():
        return kept
    return "".join(_escaped(c) if _is_unsafe(c) else c for c in kept)


def safe_lines(text: object, longest: int = 20_000) -> str:
    """Return text of several lines, each line made safe as by `safe_text`."""
    return "\n".join(safe_text(line, longest) for line in str(text)[:longest].split("\n"))


_SENTENCES = (
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"invalid literal for int\(\) with base \d+: (.*)", r"\1 is not a whole number"),
    (r"(not enough|too many) values to unpack.*", "a list has another length than it should"),
    (r"cannot reshape array of size (\d+) into shape .*", r"\1 numbers are not as many as needed"),
    (r"(setting an array element with a sequence|inhomogeneous shape|all input arrays must have|"
     r"need at least one array).*", "lists of numbers differ in length, or are empty"),
    (r"cannot convert float (NaN|infinity) to integer", "a number is not finite"),
    (r"Exceeds the limit \(\d+ digits\).*", "a number has thousands of digits"),
    (r"Invalid IPv6 URL|Port could not be cast.*|Port out of range.*", "an address is none"),
    (r"Found zero norm quaternions.*", "a rotation has no direction"),
    (r"embedded null (byte|character)", "a name contains a NUL character"),
)  # fmt: skip


def plain_reason(error: BaseException) -> str:
    """Return why values of a file cannot be used, without the words of Python.

    Readers of foreign files catch what Python raises on a value of another type or length; its own
    text ("'list' object has no attribute 'get'") tells an operator nothing about the file.
    """
    if isinstance(error, KeyError):
        return f"{safe_text(repr(error.args[0]) if error.args else 'a key', 60)} is missing"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON (line {error.lineno}, column {error.colno})"
    if isinstance(error, OSError) and error.strerror:
        return safe_text(error.strerror.lower(), 160)
    for kinds, words in (
        ((AttributeError, TypeError), "a value is of another type than it should be"),
        ((IndexError, StopIteration), "a list is shorter than it should be"),
        (OverflowError, "a number is too large"),
        (RecursionError, "it is nested too deep"),
    ):
        if isinstance(error, kinds):
            return words
    line = (str(error).strip().splitlines() or ["it is damaged"])[0]
    for pattern, words in _SENTENCES:
        line = re.sub(f"^(?:{pattern})$", words, line)
    return safe_text(line, 160)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def time_of_day(seconds: float, form: str) -> str:
    """Return a moment (seconds since 1970) in local time; "never" beyond all calendars."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "never"


def span(seconds: float | None, none: str = "-") -> str:
    """Return a time span in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return none
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
