"""Every change to the files of loaded code is detected, even if their dates stay the same, and no other change is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from seedtrust_ops.launcher.code_fingerprint import CodeFingerprint
started_ns = time.time_ns()
import company.jobs
code = CodeFingerprint.of_current_process("company.jobs", Path.cwd())
print(code.find_change(), code.find_change_since(started_ns), flush=True)
sys.stdin.readline()
print(code.find_change())
"""


def edit(folder: Path) -> None:
    (folder / "company" / "jobs.py").write_text("VALUE = 2\n")


def replace_with_same_size_and_date(folder: Path) -> None:
    file = folder / "company" / "jobs.py"
    copy = folder / "copy.py"
    shutil.copy2(file, copy)
    copy.write_text("VALUE = 3\n")
    shutil.copystat(file, copy)
    os.replace(copy, file)


def add_file(folder: Path) -> None:
    (folder / "company" / "templates" / "new.txt").write_text("")


def remove_file_that_was_not_loaded(folder: Path) -> None:
    (folder / "company" / "templates" / "email.txt").unlink()


def add_environment_file(folder: Path) -> None:
    (folder / ".env").write_text("DEV_ENV=1\n")


def add_compiled_file(folder: Path) -> None:
    compiled = folder / "company" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "other.pyc").write_bytes(b"")


def add_file_outside_the_package(folder: Path) -> None:
    (folder / "outside.py").write_text("")


@pytest.mark.parametrize(
    ("change", "detected"),
    [
        (edit, "company/jobs.py"),
        (replace_with_same_size_and_date, "company/jobs.py"),
        (add_file, "company/templates/new.txt"),
        (remove_file_that_was_not_loaded, "company/templates/email.txt"),
        (add_environment_file, ".env"),
        (add_compiled_file, None),
        (add_file_outside_the_package, None),
    ],
)
@pytest.mark.usefixtures("child_processes")
def test_change_of_loaded_code_is_detected(
    tmp_path: Path, change: Callable[[Path], None], detected: str | None
) -> None:
    (tmp_path / "company" / "templates").mkdir(parents=True)
    (tmp_path / "company" / "__init__.py").write_text("")
    (tmp_path / "company" / "jobs.py").write_text("VALUE = 1\n")
    (tmp_path / "company" / "templates" / "email.txt").write_text("Dear ...\n")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["None", "None"]
        change(tmp_path)
        output, _ = process.communicate("\n", timeout=120)
    assert output.strip() == ("None" if detected is None else str(tmp_path / detected))


@pytest.mark.usefixtures("child_processes")
def test_change_while_loading_is_detected(tmp_path: Path) -> None:
    (tmp_path / "company").mkdir()
    (tmp_path / "company" / "__init__.py").write_text("")
    (tmp_path / "company" / "jobs.py").write_text("from pathlib import Path\nPath(__file__).touch()\n")
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, input="\n", capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[0] == f"None {tmp_path / 'company' / 'jobs.py'}"
