"""Keys have names, and what is no key is passed over."""

from __future__ import annotations

import pytest

from vlwm.core.monitoring.terminal.keys import decode


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[Bz", ["up", "down", "z"]),
        ("\x1b", ["escape"]),
        ("\x1b[5~q", ["q"]),  # page up has no name
        ("\x1b[1;5Cx", ["x"]),
        ("漢\r\x7f", ["漢", "enter", "backspace"]),
        ("\x1b[", []),
        ("", []),
    ],
)
def test_decode(sent: str, names: list[str]) -> None:
    assert decode(sent) == names
