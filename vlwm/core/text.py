"""Make text of others (names in files, catalogues, configs) safe to print, draw or put in HTML."""

from __future__ import annotations

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


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
