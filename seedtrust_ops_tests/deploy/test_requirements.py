"""requirements/, and the targets of the Makefile about installing: hashes, pins, the audit and the browser."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import seedtrust_ops

ROOT = Path(seedtrust_ops.__file__).parents[1]
FOLDER = ROOT / "requirements"
FILES = sorted(FOLDER.glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==[\w.+!-]+(?: ; [^\\:/]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
CHROMIUM = "apt-get install -y -qq --no-install-recommends chromium"


def packages_of(file: Path) -> set[str]:
    """Return the names of the packages that a file pins, with those of the files it includes."""
    lines = file.read_text().splitlines()
    names = {match[1] for line in lines if (match := PIN.fullmatch(line))}
    included = [FOLDER / line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    return names.union(*(packages_of(one) for one in included))


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[._]+", "-", match[0]).lower()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_pin_has_hashes_and_no_address(file: Path) -> None:
    header, *lines = file.read_text().splitlines()
    assert header.startswith("# Made by `make lock`")
    if lines[0].startswith("-r "):
        assert (FOLDER / lines.pop(0).removeprefix("-r ")) in FILES
    unexpected = [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]
    assert unexpected == []
    # The hashes of a pin follow it; the last one has no backslash.
    assert all(HASH.fullmatch(after) for line, after in pairwise(lines) if line.endswith("\\"))
    assert not lines[-1].endswith("\\")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_dependency_is_pinned_in_its_file(file: Path) -> None:
    """Packages are installed without their dependencies, so a missing one would not be installed at all."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert {one.stem for one in FILES} == {"base", *extras}
    wanted = [*PROJECT["project"]["dependencies"], *(extras[file.stem] if file.stem != "base" else ())]
    assert {name_of(requirement) for requirement in wanted} <= packages_of(file)


def test_project_is_built_with_the_pinned_setuptools() -> None:
    (setuptools,) = PROJECT["build-system"]["requires"]
    assert re.fullmatch(r"setuptools==[\d.]+", setuptools)
    assert f"\n{setuptools} \\\n" in (FOLDER / "base.txt").read_text()


def test_every_installation_asks_for_hashes() -> None:
    """A line either installs what has a hash, or builds this project from its own folder with what is installed."""
    found = 0
    for file in ("Makefile", "deploy/Dockerfile", "docs/deploy.md"):
        text = (ROOT / file).read_text().replace("\\\n", " ")
        for line in re.findall(r"^.*(?:pip install|\$\(PIP\)) .*$", text, re.MULTILINE):
            if line.startswith("PIP :="):
                continue
            found += 1
            if "'dagster==$(VERSION)'" in line:
                continue  # `make test-dagster`: the lock has no hashes of other versions
            has_hashes = all(option in line for option in ("--require-hashes", "--no-deps", "--only-binary :all:"))
            builds = re.search(r"--no-deps --no-build-isolation (--editable )?\.$", line)
            assert has_hashes or builds, f"{file}: {line}"
    assert found >= 9


FAKE_AUDIT = """
import json, sys
answers = json.loads({answers!r})
answer = answers["pins" if "--require-hashes" in sys.argv else "control"]
sys.exit("no route to host") if answer is None else print(json.dumps({{"dependencies": answer}}))
"""
SAFE = {"name": "safe", "version": "1", "vulns": []}
VULNERABLE = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "own", "skip_reason": "it is not in the index"}


@pytest.mark.usefixtures("child_processes")
@pytest.mark.parametrize(
    ("control", "pins", "status", "said"),
    [
        (None, [SAFE], 0, "NOT CHECKED: no advisories are available here."),
        ([SAFE], [SAFE], 0, "NOT CHECKED: no advisories are available here."),
        ([SKIPPED], [SAFE], 0, "NOT CHECKED: no advisories are available here."),
        ([VULNERABLE], None, 0, "NOT CHECKED: pip-audit did not finish."),
        ([VULNERABLE], [SAFE, SKIPPED], 0, "own: not checked, it is not in the index\n1 packages checked, 0 known"),
        ([VULNERABLE], [SAFE, VULNERABLE], 1, "bad 2: CVE-1, fixed in 3\n2 packages checked, 1 known"),
    ],
)
def test_audit_says_what_it_could_check(
    tmp_path: Path,
    control: list[dict[str, Any]] | None,
    pins: list[dict[str, Any]] | None,
    status: int,
    said: str,
) -> None:
    (tmp_path / "pip_audit.py").write_text(FAKE_AUDIT.format(answers=json.dumps({"control": control, "pins": pins})))
    result = subprocess.run(
        [sys.executable, FOLDER / "audit.py"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith(said), result.stdout + result.stderr
    assert result.returncode == status


@pytest.mark.usefixtures("child_processes")
@pytest.mark.parametrize(
    ("user", "answer", "is_installed", "said"),
    [
        ("0", None, True, "The UI tests need a browser. Installing Chromium with apt-get."),
        ("0", "y", True, "Install Chromium with apt-get? [y/N]"),
        ("0", "n", False, "Install Chromium with 'sudo apt-get install chromium'"),
        ("1000", None, False, "Install Chromium with 'sudo apt-get install chromium'"),
    ],
)
def test_browser_is_installed_only_if_asked_or_announced(
    tmp_path: Path, user: str, answer: str | None, is_installed: bool, said: str
) -> None:
    calls = tmp_path / "calls"
    for name, script in {"id": f"echo {user}", "apt-get": f'echo "apt-get $*" >> {calls}'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("make", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    terminal, child = pty.openpty()
    if answer is not None:
        os.write(terminal, f"{answer}\n".encode())
    result = subprocess.run(
        ["make", "--no-print-directory", "browser"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL if answer is None else child,
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(terminal)
    os.close(child)
    assert said in result.stdout + result.stderr
    assert (calls.exists() and CHROMIUM in calls.read_text()) == is_installed
