"""The locale that a process was started with, which Python hides, and whether the system has it."""

from __future__ import annotations

from collections.abc import Mapping

LOCALE_NAMES = ("LC_ALL", "LC_CTYPE", "LANG")
"""environment variables that name the character set; the first that is set decides"""
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")


def is_utf8(name: str) -> bool:
    """Return whether a locale's name means UTF-8."""
    return "utf8" in name.lower().replace("-", "")


def original_locale(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as it was before Python changed it.

    Where the locale is C, POSIX, missing or not generated, CPython puts LC_CTYPE=C.UTF-8 into its
    own environment (PEP 538), which tells nothing about the terminal.
    """
    found = dict(environ)
    if found.get("LC_ALL") or found.get("LC_CTYPE") not in _COERCED:
        return found
    started = _environment_at_start()
    if started is not None:
        coerced = "LC_CTYPE" not in started
    else:
        language = found.get("LANG", "")
        coerced = language in ("", "C", "POSIX") or not locale_exists(language)
    if coerced:
        del found["LC_CTYPE"]
    return found


def _environment_at_start() -> set[str] | None:
    """Return the names of the variables that this process was started with, on Linux."""
    try:
        with open("/proc/self/environ", "rb") as handle:
            words = handle.read().split(b"\0")
    except OSError:
        return None
    return {word.partition(b"=")[0].decode(errors="replace") for word in words if word}


def locale_exists(name: str) -> bool:
    """Return whether the system has generated a locale."""
    import locale

    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except (locale.Error, ValueError):
        return False
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return True
