"""The code server's socket: the same path for the next worker, in a folder that no other user can enter."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.supervisor.worker_stack import (
    MAX_SOCKET_PATH_BYTES,
    hold_worker_lock,
    is_listening,
    prepare_code_server_socket,
)

NOBODY = 65_534


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a path short enough for sockets, unlike `tmp_path`; it is the temporary folder too."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="st-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def is_private(folder: Path) -> bool:
    return stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_socket_path_stays_the_same_for_the_next_worker(short_folder: Path) -> None:
    homes = [short_folder / "home", short_folder / ("long" * 40), short_folder / "100% of #1?"]
    paths = [prepare_code_server_socket(home) for home in homes]
    assert [prepare_code_server_socket(home) for home in homes] == paths
    assert len(set(paths)) == len(homes), "two homes share a socket"
    assert paths[0].parent == homes[0]
    for path in paths:
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
        assert not set("#?%").intersection(str(path))
        assert is_private(path.parent)


def test_killed_worker_leaves_no_socket_behind(short_folder: Path) -> None:
    folder = short_folder / "worker"
    path = prepare_code_server_socket(folder)
    # Files of processes that were killed: nobody listens any more.
    for left in (path, folder / "tmp12345678"):
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(left))
    (folder / "workspace.yaml").write_text("")
    assert not is_listening(path)
    assert prepare_code_server_socket(folder) == path
    assert [file.name for file in folder.iterdir()] == ["workspace.yaml"]


def test_open_folder_is_closed_to_other_users(short_folder: Path) -> None:
    folder = short_folder / "worker"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with hold_worker_lock(folder):
        assert is_private(folder)


@pytest.mark.parametrize("planted", ["folder", "link", "file"])
def test_folder_of_another_user_is_refused(planted: str, short_folder: Path) -> None:
    if planted == "folder" and os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    folder, target = short_folder / "worker", short_folder / "target"
    target.mkdir()
    match planted:
        case "folder":
            folder.mkdir()
            os.chown(folder, NOBODY, NOBODY)
        case "link":
            folder.symlink_to(target)
        case _:
            folder.touch()
    with pytest.raises(ConfigurationError, match=f"{folder} must be a folder that belongs to the user"):
        prepare_code_server_socket(folder)
    assert list(target.iterdir()) == []


def test_folders_without_a_short_path_are_refused(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder / ("long" * 40)))
    with pytest.raises(ConfigurationError, match="DAGSTER_HOME and TMPDIR are too long"):
        prepare_code_server_socket(short_folder / ("long" * 40))
