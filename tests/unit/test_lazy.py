from __future__ import annotations

import pytest
from check_shapes.exceptions import ShapeMismatchError

from natdgp.lazy import check_shapes, lazy


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
