from pathlib import Path

import pytest


@pytest.fixture
def table_csv(tmp_path: Path) -> Path:
    """Twenty rows of two features, a target and a split column: 12 / 4 / 4."""
    parts = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    lines = [f"{i},{i % 3 + 0.5},{2 * i - 7},{part}" for i, part in enumerate(parts)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,y,part", *lines, ""]))
    return path
