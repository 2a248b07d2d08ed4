"""Compile functions with numba, cached where a folder can be written.

Compilation takes seconds, so its result is cached next to the source, or in the user's cache folder
if the package is read-only (or in NUMBA_CACHE_DIR). If none of them can be written, numba refuses
to define the function at all; it is then compiled again in each process.

A cached function is refreshed when its own file changes, not when a function it calls in another
file does: keep compiled functions that call each other in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Return the function compiled at its first call; it releases the GIL, and x / 0 gives inf."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        # neither cache folder can be written: any other error is a real one
        if "no locator available" not in str(error):
            raise
        return numba.njit(**options)(function)
