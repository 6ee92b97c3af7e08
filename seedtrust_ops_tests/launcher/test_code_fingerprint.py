"""Whatever changes the files of loaded code is noticed, even where their dates are kept; and nothing else is."""

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
from seedtrust_ops.launcher.code_fingerprint import LoadedCode
began = time.time_ns()
import company.jobs
code = LoadedCode.of_this_process("company.jobs", Path.cwd())
print(code.changed(), code.changed_since(began), flush=True)
sys.stdin.readline()
print(code.changed())
"""


def edit(folder: Path) -> None:
    (folder / "company" / "jobs.py").write_text("VALUE = 2\n")


def replace_by_one_of_the_same_size_and_date(folder: Path) -> None:
    file = folder / "company" / "jobs.py"
    copy = folder / "copy.py"
    shutil.copy2(file, copy)
    copy.write_text("VALUE = 3\n")
    shutil.copystat(file, copy)
    os.replace(copy, file)


def add_what_was_not_there(folder: Path) -> None:
    (folder / "company" / "templates" / "new.txt").write_text("")


def remove_what_was_not_loaded(folder: Path) -> None:
    (folder / "company" / "templates" / "letter.txt").unlink()


def add_environment_file(folder: Path) -> None:
    (folder / ".env").write_text("DEV_ENV=1\n")


def compile_it(folder: Path) -> None:
    compiled = folder / "company" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "other.pyc").write_bytes(b"")


def touch_a_neighbour(folder: Path) -> None:
    (folder / "neighbour.py").write_text("")


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (edit, "company/jobs.py"),
        (replace_by_one_of_the_same_size_and_date, "company/jobs.py"),
        (add_what_was_not_there, "company/templates/new.txt"),
        (remove_what_was_not_loaded, "company/templates/letter.txt"),
        (add_environment_file, ".env"),
        (compile_it, None),
        (touch_a_neighbour, None),
    ],
)
def test_changes_of_loaded_code_are_noticed(
    tmp_path: Path, change: Callable[[Path], None], noticed: str | None
) -> None:
    (tmp_path / "company" / "templates").mkdir(parents=True)
    (tmp_path / "company" / "__init__.py").write_text("")
    (tmp_path / "company" / "jobs.py").write_text("VALUE = 1\n")
    (tmp_path / "company" / "templates" / "letter.txt").write_text("Dear ...\n")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["None", "None"]
        change(tmp_path)
        said, _ = process.communicate("\n", timeout=120)
    assert said.strip() == ("None" if noticed is None else str(tmp_path / noticed))


def test_code_that_changes_while_it_is_loaded_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "company").mkdir()
    (tmp_path / "company" / "__init__.py").write_text("")
    (tmp_path / "company" / "jobs.py").write_text("from pathlib import Path\nPath(__file__).touch()\n")
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, input="\n", capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[0] == f"None {tmp_path / 'company' / 'jobs.py'}"
