from __future__ import annotations

import numba
import pytest

from vlwm.core.geometry.jit import compiled


def double(value: float) -> float:
    return 2 * value


def test_compiles():
    assert compiled(double)(21.0) == 42.0


def test_compiles_without_a_cache_where_no_folder_can_be_written(monkeypatch):
    njit = numba.njit

    def njit_in_a_read_only_place(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", njit_in_a_read_only_place)
    assert compiled(double)(21.0) == 42.0


def test_other_faults_are_not_hidden(monkeypatch):
    def broken(**options):
        raise RuntimeError("the compiler is broken")

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="broken"):
        compiled(double)
