"""Folders of versions: what counts as one, names, and what dead processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.errors import ExportFailed, InvalidOption, VersionNotFound
from tfserve_nb.export.layout import (
    MAX_VERSION,
    check_name,
    check_version,
    delete_version,
    list_versions,
    next_version,
    remove_stale,
    temporary_dir,
    version_dir,
)
from tfserve_nb.temporary import TemporaryFolder, replacing


def make(model_dir: Path, *names: str) -> Path:
    for name in names:
        (model_dir / name).mkdir(parents=True)
    return model_dir


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def dead_pid() -> int:
    """The id of a process that has ended and been waited for."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    return process.pid


def test_only_numbers_are_versions(tmp_path: Path) -> None:
    make(tmp_path, "2", "00000123", "tmp", ".exporting-h-1-x", "1.5", "-3", "v4", "٣", "10")
    (tmp_path / "77").write_text("a file is no version")

    assert list_versions(tmp_path) == (2, 10, 123)


def test_a_folder_that_does_not_exist_has_no_versions(tmp_path: Path) -> None:
    assert list_versions(tmp_path / "nothing") == ()
    assert next_version(tmp_path / "nothing") == 1


def test_a_number_too_large_for_servers_is_no_version(tmp_path: Path) -> None:
    make(tmp_path, str(MAX_VERSION), str(MAX_VERSION + 1))

    assert list_versions(tmp_path) == (MAX_VERSION,)


def test_the_next_version_is_above_everything_numeric(tmp_path: Path) -> None:
    make(tmp_path, "1", "007")
    (tmp_path / "9").write_text("in the way")

    assert next_version(tmp_path) == 10
    assert next_version(tmp_path, above=40) == 41
    assert next_version(tmp_path, above=3) == 10


@given(st.lists(st.integers(min_value=1, max_value=10**6), max_size=8, unique=True), st.integers(0, 4))
def test_the_next_version_is_free_whatever_is_there(versions: list[int], zeros: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), *("0" * zeros + str(version) for version in versions))

        found = list_versions(Path(folder))

        assert found == tuple(sorted(versions))
        assert next_version(Path(folder)) == max(versions, default=0) + 1


def test_a_version_is_found_however_many_zeros_it_has(tmp_path: Path) -> None:
    make(tmp_path / "digits", "00000123")

    assert version_dir(tmp_path, "digits", 123) == tmp_path / "digits" / "00000123"
    assert version_dir(tmp_path, "digits", 5) == tmp_path / "digits" / "5"


def test_the_plain_number_wins_over_the_one_with_zeros(tmp_path: Path) -> None:
    make(tmp_path / "digits", "001", "1")

    assert version_dir(str(tmp_path), "digits", 1).name == "1"


@pytest.mark.parametrize("name", ["digits", "Digits-2.1", "modèle", "a b", "half_plus_two", "x" * 200, "ресницы"])
def test_names_that_urls_and_file_systems_take_are_allowed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a:b", "a\\b", "a?b", "a#b", "50%", "a\nb", " a", "a ", "x" * 201, "\0", 3, None],
)
def test_other_names_are_refused_with_the_value_and_what_is_allowed(name: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        check_name(name)

    assert caught.value.message.startswith(f"name={name!r} cannot name a model: needed is a name of at most 200 bytes")
    assert caught.value.hint.startswith("--name ")
    check_name(caught.value.hint.removeprefix("--name "))


def test_the_hint_for_a_name_is_close_to_it() -> None:
    with pytest.raises(InvalidOption) as caught:
        check_name("my/model:v2")

    assert caught.value.hint == "--name my_model_v2"


@pytest.mark.parametrize("version", [1, 7, MAX_VERSION])
def test_positive_integers_are_versions(version: int) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize("version", [0, -1, MAX_VERSION + 1, True, 1.0, "3", None])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(InvalidOption, match="must be an integer from 1 to 9223372036854775807"):
        check_version(version)


def test_a_deleted_version_is_gone_and_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path / "digits", "1", "002/variables")
    (tmp_path / "digits" / "002" / "saved_model.pb").write_bytes(b"x")

    delete_version(tmp_path, "digits", 2)

    assert names_in(tmp_path / "digits") == ["1"]


def test_deleting_a_version_that_is_not_there_says_which_are(tmp_path: Path) -> None:
    make(tmp_path / "digits", "1", "4")

    with pytest.raises(VersionNotFound) as caught:
        delete_version(tmp_path, "digits", 3)

    assert caught.value.message == "Could not find version 3 of model digits"
    assert caught.value.hint == "on disk: 1, 4"


def test_deleting_from_a_model_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(VersionNotFound) as caught:
        delete_version(tmp_path, "digits", 1)

    assert caught.value.hint == "on disk: none"


def test_a_version_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "digits", "1")

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ExportFailed, match=r"version 1 of model digits cannot be removed from .*: Permission denied"):
        delete_version(tmp_path, "digits", 1)

    assert names_in(tmp_path / "digits") == ["1"]


def test_a_temporary_folder_is_invisible_and_goes_away(tmp_path: Path) -> None:
    with temporary_dir(tmp_path, "exporting") as folder:
        (folder / "model").mkdir()
        assert list_versions(tmp_path) == ()
        assert folder.parent == tmp_path
        assert str(os.getpid()) in folder.name

    assert names_in(tmp_path) == []


def test_a_temporary_folder_goes_away_when_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_dir(tmp_path, "exporting"):
        raise KeyboardInterrupt

    assert names_in(tmp_path) == []


def abandoned(tmp_path: Path, pid: int, host: str | None = None, purpose: str = "exporting") -> Path:
    """A temporary folder as a process of that id would have left it."""
    with temporary_dir(tmp_path, purpose) as mine:
        name = mine.name.replace(f"-{os.getpid()}-", f"-{pid}-")
    own_host = name.removeprefix(f".{purpose}-").rsplit("-", 2)[0]
    folder = tmp_path / name.replace(own_host, host or own_host, 1)
    folder.mkdir()
    return folder


@pytest.mark.parametrize("purpose", ["exporting", "deleting"])
def test_what_a_dead_process_left_is_removed(tmp_path: Path, purpose: str) -> None:
    folder = abandoned(tmp_path, dead_pid(), purpose=purpose)
    (folder / "saved_model.pb").write_bytes(b"half")
    make(tmp_path, "1")

    assert remove_stale(tmp_path) == (folder,)
    assert names_in(tmp_path) == ["1"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    folder = abandoned(tmp_path, os.getppid())

    assert remove_stale(tmp_path) == ()
    assert folder.exists()


def test_what_another_host_writes_stays(tmp_path: Path) -> None:
    folder = abandoned(tmp_path, dead_pid(), host="elsewhere")

    assert remove_stale(tmp_path) == ()
    assert folder.exists()


def test_a_locked_folder_stays_even_if_its_process_seems_dead(tmp_path: Path) -> None:
    # As when a container with the same host name has the same process id for something else.
    fcntl = pytest.importorskip("fcntl")
    folder = abandoned(tmp_path, dead_pid())
    holder = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)

        assert remove_stale(tmp_path) == ()
        assert folder.exists()
    finally:
        os.close(holder)


def test_what_this_process_is_writing_stays_and_what_it_lost_goes(tmp_path: Path) -> None:
    lost = abandoned(tmp_path, os.getpid())
    with temporary_dir(tmp_path, "exporting") as in_use:
        assert remove_stale(tmp_path) == (lost,)
        assert in_use.exists()


def test_the_systems_temporary_folders_are_swept_by_the_next_of_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outside = make(tmp_path / "outside", "kept")
    make(
        tmp_path,
        f"tfserve-child-{dead_pid()}-lost/x",
        f"tfserve-child-{os.getppid()}-alive",
        f"tfserve-tls-{dead_pid()}-other",
        "tfserve-child-mine",
    )
    (tmp_path / f"tfserve-child-{dead_pid()}-link").symlink_to(outside)
    with TemporaryFolder("tfserve-child") as first, TemporaryFolder("tfserve-child") as second:
        assert first.path != second.path
        assert first.path.stat().st_mode & 0o777 == 0o700
        left = {name.split("-")[-1] for name in names_in(tmp_path)}
        assert left == {"outside", "alive", "other", "mine", "link"} | {
            folder.path.name.split("-")[-1] for folder in (first, second)
        }

    assert not first.path.exists()
    assert names_in(outside) == ["kept"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            assert path.read_text() == "old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"

    (tmp_path / "link").symlink_to(path)
    with replacing(tmp_path / "link") as partial:
        partial.write_text("new")

    assert path.read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path) == ["kept.txt", "link"]


def test_other_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path, ".git", ".exporting", ".exporting-x", "exporting-h-1-x")

    assert remove_stale(tmp_path) == ()
