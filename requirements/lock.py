"""Pins every dependency of pyproject.toml, with the hashes of its files: `make lock`, which needs uv on the PATH.

It keeps the versions that are pinned already; `make lock UPGRADE="--upgrade-package NAME"` replaces one. There is a
file per extra, and each names only what the file that it includes does not. The files record no address: pip takes a
package from whichever index is configured, and refuses what has another hash.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent / "pyproject.toml"
INCLUDED = {
    "base": None,
    "sandbox": "base",
    "development": "sandbox",
    "audit": "base",
    "bench": "development",
    "ecs": "base",
    "kubernetes": "base",
}
"""The file that each file includes. `base` is the project without extras, and the setuptools that builds it."""
OPTIONS = ("--quiet", "--universal", "--python-version=3.11", "--no-annotate", "--no-header", "--no-emit-index-url")
PIN = re.compile(r"^[a-z0-9].*(?:\n .*)*", re.MULTILINE)
"""A package with its version and marker, and its hashes on the next lines."""


def main(uv_options: list[str]) -> None:
    """Write all files."""
    with tempfile.TemporaryDirectory() as folder:
        # One resolution for all extras, so that their files never disagree.
        versions, build = Path(folder) / "versions.txt", Path(folder) / "build.txt"
        versions.write_text("".join(f"{find_version(pin)}\n" for name in INCLUDED for pin in find_pins(name)))
        build.write_text("\n".join(tomllib.loads(PROJECT.read_text())["build-system"]["requires"]))
        extras = [name for name in INCLUDED if name != "base"]
        compile_pins(extras, build, f"--output-file={versions}", *uv_options)
        pins = {
            name: PIN.findall(compile_pins(extras_of(name), build, f"--constraints={versions}", "--generate-hashes"))
            for name in INCLUDED
        }
    for name, parent in INCLUDED.items():
        included = {find_version(pin) for one in ancestors_of(name) for pin in pins[one]}
        own = [pin for pin in pins[name] if find_version(pin) not in included]
        include = f"-r {parent}.txt\n" if parent else ""
        header = f"# Made by `make lock` from pyproject.toml ({name}): edit that, not this.\n"
        (FOLDER / f"{name}.txt").write_text("\n".join([f"{header}{include}", *own, ""]).replace("\n\n", "\n"))


def compile_pins(extras: list[str], *arguments: Path | str) -> str:
    """Return what uv pins for the project with these extras; `arguments` are more requirements, and options of uv."""
    command = ["uv", "pip", "compile", *OPTIONS, *(f"--extra={extra}" for extra in extras), PROJECT, *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return result.stdout


def ancestors_of(name: str) -> list[str]:
    """Return the files that a file includes, directly or not."""
    parent = INCLUDED[name]
    return [parent, *ancestors_of(parent)] if parent else []


def extras_of(name: str) -> list[str]:
    """Return the extras that a file and those that it includes are for."""
    return [one for one in (name, *ancestors_of(name)) if one != "base"]


def find_pins(name: str) -> list[str]:
    """Return the pins that a file has itself."""
    path = FOLDER / f"{name}.txt"
    return PIN.findall(path.read_text()) if path.exists() else []


def find_version(pin: str) -> str:
    """Return a pin without its hashes."""
    return pin.partition(" \\")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
