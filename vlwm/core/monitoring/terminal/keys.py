"""Read keys as they are pressed, without Enter and without echo."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

_WAIT_S = 0.1
_SPECIAL = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip


@contextlib.contextmanager
def pressed_keys() -> Iterator[Callable[[], list[str]]]:
    """Yield a function that waits a moment and returns the names of the keys pressed.

    A name is the character itself, or up, down, left, right, enter, escape, backspace. Without a
    terminal on stdin there are no keys, and the function only waits.
    """
    if not sys.stdin.isatty():
        yield _no_keys
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle)
    try:
        yield lambda: _read(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _no_keys() -> list[str]:
    time.sleep(_WAIT_S)
    return []


def _read(handle: int) -> list[str]:
    ready, _, _ = select.select([handle], [], [], _WAIT_S)
    if not ready:
        return []
    typed = os.read(handle, 64)
    if not typed:  # the terminal has gone
        return ["q"]
    return decode(typed.decode(errors="replace"))


def decode(text: str) -> list[str]:
    """Return the names of the keys in what a terminal sent."""
    names = []
    while text:
        length = next((n for n in (3, 1) if text[:n] in _SPECIAL), 0)
        if length == 1 and text.startswith(("\x1b[", "\x1bO")):  # a key that has no name here
            end = next((i for i, c in enumerate(text[2:], 2) if c.isalpha() or c == "~"), len(text))
            text = text[end + 1 :]
            continue
        names.append(_SPECIAL[text[:length]] if length else text[0])
        text = text[length or 1 :]
    return names
