"""What another user of this machine reaches: every address at which processes listen, tried as `nobody`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

NOBODY = 65_534
LISTENING = "00010000"
"""The flag of a listening unix socket in /proc/net/unix (__SO_ACCEPTCON)."""

Address = int | str
"""A TCP port of loopback, or the path of a unix socket."""

ATTACK = f"""
import contextlib, json, os, socket, sys
addresses, folders = json.loads(sys.argv[1])
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
reached = []
for address in addresses:
    family, name = (socket.AF_UNIX, address) if isinstance(address, str) else (socket.AF_INET, ("127.0.0.1", address))
    with contextlib.closing(socket.socket(family)) as connection, contextlib.suppress(PermissionError):
        connection.settimeout(10)
        connection.connect(name)
        reached.append(address)
for folder in folders:
    with contextlib.suppress(PermissionError):
        os.chdir(folder)
        reached.append(folder)
print(json.dumps(reached))
"""


def find_listening_addresses(processes: Iterable[psutil.Process]) -> set[Address]:
    """Return every TCP port and unix socket at which one of the processes listens."""
    found: set[Address] = set()
    with Path("/proc/net/unix").open() as table:
        fields = [line.split(maxsplit=7) for line in table]
    # Number, count, protocol, flags, type, state, inode, path.
    paths = {row[6]: row[7].strip() for row in fields if len(row) == 8 and row[3] == LISTENING}
    for process in processes:
        try:
            found |= {one.laddr.port for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
            links = [os.readlink(file) for file in Path(f"/proc/{process.pid}/fd").iterdir()]
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue  # it has exited, or closed the file meanwhile
        inodes = [link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")]
        found |= {paths[inode] for inode in inodes if inode in paths}
    return found


def find_reachable_by_another_user(addresses: Iterable[Address], folders: Iterable[Path]) -> set[Address]:
    """Return the addresses that accept a connection of `nobody`, and the folders that `nobody` can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    tried = json.dumps([sorted(addresses, key=str), [str(folder) for folder in folders]])
    result = subprocess.run([sys.executable, "-c", ATTACK, tried], capture_output=True, text=True, check=True)
    reached: list[Address] = json.loads(result.stdout)
    return set(reached)
