from __future__ import annotations

import subprocess
import sys

import pytest
from check_shapes.exceptions import ShapeMismatchError

from natdgp.lazy import check_shapes, lazy


def test_a_module_is_imported_when_first_used() -> None:
    program = (
        "import sys; from natdgp.lazy import lazy; wave = lazy('wave');"
        "before = 'wave' in sys.modules; wave.open; print(before, 'wave' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.split() == ["False", "True"]


def test_a_lazy_module_has_what_the_module_has() -> None:
    assert lazy("math").pi == pytest.approx(3.14159, abs=1e-5)
    with pytest.raises(AttributeError):
        _ = lazy("math").nothing


def test_shapes_are_checked_though_the_checker_comes_late() -> None:
    @check_shapes("a: [n]", "b: [n]")
    def total(a: list[float], b: list[float]) -> float:
        """Sum."""
        return sum(a) + sum(b)

    assert (total.__name__, total.__doc__) == ("total", "Sum.")
    assert total([1.0, 2.0], [3.0, 4.0]) == 10
    with pytest.raises(ShapeMismatchError):
        total([1.0, 2.0], [3.0])
