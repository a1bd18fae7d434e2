import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natdgp.data.data_settings import SplitSettings
from natdgp.data.split import divide
from natdgp.data.table import DataError

PARTS = np.array(["test", "train", "validation", "train", "train"])


@given(
    num_rows=st.integers(10, 500),
    seed=st.integers(0, 2**70),
    shares=st.tuples(st.floats(0.01, 0.4), st.floats(0, 0.4)),
)
def test_parts_are_disjoint_and_cover_all_rows(
    num_rows: int, seed: int, shares: tuple[float, float]
) -> None:
    settings = SplitSettings(validation=shares[0], test=shares[1], seed=seed)
    division = divide(num_rows, settings)
    together = np.concatenate([division.train, division.validation, division.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(num_rows))
    assert len(division.validation) == max(1, round(num_rows * shares[0]))
    assert (len(division.test) == 0) == (shares[1] == 0)


def test_the_division_is_the_seeds() -> None:
    one, same, other = (divide(100, SplitSettings(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, same.train)
    np.testing.assert_array_equal(one.test, same.test)
    assert set(one.test) != set(other.test)


def test_rows_are_drawn_before_they_are_divided() -> None:
    division = divide(1000, SplitSettings(), keep=50)
    together = np.concatenate([division.train, division.validation, division.test])
    assert [len(p) for p in (division.train, division.validation, division.test)] == [40, 5, 5]
    assert len(set(together)) == 50
    assert together.max() > 50


def test_a_column_divides_as_it_says() -> None:
    division = divide(5, SplitSettings(column="part"), parts=PARTS)
    assert division.train.tolist() == [1, 3, 4]
    assert division.validation.tolist() == [2]
    assert division.test.tolist() == [0]


def test_too_few_rows_to_train_on_are_told() -> None:
    with pytest.raises(DataError, match=r"no train rows among the 2 in use; give more rows"):
        divide(2, SplitSettings())


def test_no_validation_rows_are_told() -> None:
    with pytest.raises(DataError, match=r"no validation rows.*raise data\.split\.validation"):
        divide(100, SplitSettings(validation=0))


@pytest.mark.parametrize("absent", ["train", "validation"])
def test_a_column_without_a_needed_part_is_told(absent: str) -> None:
    parts = np.where(absent == PARTS, "test", PARTS)
    with pytest.raises(DataError, match=f"no {absent} rows.*more rows of column 'part'"):
        divide(5, SplitSettings(column="part"), parts=parts)


def test_more_rows_than_there_are_are_told() -> None:
    with pytest.raises(DataError, match=r"data\.rows is 11 but the source has 10; lower it"):
        divide(10, SplitSettings(), keep=11)
