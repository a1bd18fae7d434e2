from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from natdgp.run.run_folder import FolderError, RunFolder
from natdgp.run.trial_code import (
    LIBRARY_TRIALS,
    copy_trial_code,
    find_trial_code,
    trial_class_of,
    working_in,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A context folder with modules, a package with a package inside, and other things."""
    source = tmp_path / "source"
    for file in ("lone.py", "helper.py", "trials/__init__.py", "trials/mine.py"):
        path = source / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = {file!r}\n")
    for file in ("trials/deep/er.py", "bare/mine.py", "data.csv", "notes/todo.txt"):
        path = source / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = {file!r}\n")
    (source / "trials" / "__pycache__").mkdir()
    return source


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("lone:Trial", ["helper.py", "lone.py", "trials"]),  # what it may import
        ("trials.mine:Trial", ["helper.py", "lone.py", "trials"]),
        ("trials.deep.er:Outer.Inner", ["helper.py", "lone.py", "trials"]),
        ("trials:Trial", ["helper.py", "lone.py", "trials"]),
        ("bare.mine:Trial", ["bare", "helper.py", "lone.py"]),
    ],
)
def test_trial_code_is_the_folder_it_lies_in_and_the_modules_at_the_top(
    source: Path, spec: str, found: list[str]
) -> None:
    assert find_trial_code(spec, source) == [Path(name) for name in found]


@pytest.mark.parametrize("spec", LIBRARY_TRIALS)
def test_an_installed_trial_is_not_carried_along(source: Path, spec: str) -> None:
    assert find_trial_code(spec, source) == []


@pytest.mark.parametrize(
    "spec", ["trials.other:Trial", "nowhere:Trial", "nowhere.at.all:Trial", "natdgp.nothing:Trial"]
)
def test_a_missing_trial_is_refused_with_the_place_it_was_looked_for(
    source: Path, spec: str
) -> None:
    path = source.joinpath(*spec.partition(":")[0].split("."))
    with pytest.raises(FolderError) as raised:
        find_trial_code(spec, source)
    assert f"there is no {path}.py" in str(raised.value)
    assert spec in str(raised.value)


def test_looking_for_a_trial_does_not_run_it(source: Path) -> None:
    (source / "trials" / "__init__.py").write_text("raise RuntimeError")
    (source / "trials" / "mine.py").write_text("raise RuntimeError")
    assert Path("trials") in find_trial_code("trials.mine:Trial", source)


def test_code_is_copied_without_what_python_left_behind(source: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    copy_trial_code([Path("trials"), Path("lone.py")], source, code)
    copied = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    assert copied == {"trials/__init__.py", "trials/mine.py", "trials/deep/er.py", "lone.py"}
    assert not (code / "trials" / "__pycache__").exists()


def test_a_run_works_in_its_code_and_leaves_directory_and_path_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(Path("run"))
    before = list(sys.path)
    with contextlib.suppress(RuntimeError), working_in(folder):
        assert (Path.cwd(), sys.path[0]) == (folder.code, str(folder.code))
        raise RuntimeError
    assert (Path.cwd(), sys.path) == (tmp_path, before)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with the code of two trials."""
    folder = RunFolder.create(tmp_path / "run")
    (folder.code / "two_trials.py").write_text(
        "from natdgp.determined import DeepGPTrial\n\n\n"
        "class One(DeepGPTrial): ...\n\n\n"
        "class Other(DeepGPTrial): ...\n"
    )
    return folder


def test_a_trial_is_the_class_of_that_name(folder: RunFolder) -> None:
    with working_in(folder):
        assert trial_class_of("two_trials:Other", folder).__name__ == "Other"


@pytest.mark.parametrize("name", ["One.Inner", "REPOSITORY_OF_NOTHING", "annotations"])
def test_a_class_that_is_no_trial_is_refused_with_those_there_are(
    folder: RunFolder, name: str
) -> None:
    with working_in(folder), pytest.raises(FolderError) as raised:
        trial_class_of(f"two_trials:{name}", folder)
    assert f"trial two_trials:{name}, but {name} is no trial in two_trials" in str(raised.value)
    assert str(raised.value).endswith("it has these: One, Other")


def test_a_trial_of_ones_own_needs_determined(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("natdgp.determined")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "determined", None)
    with pytest.raises(FolderError, match=r"which needs Determined .*install natdgp\[cluster\]"):
        trial_class_of("two_trials:One", folder)
