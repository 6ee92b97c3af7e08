"""`seedtrust-ops new job`: writes the files of a new job and registers it, in a source checkout.

The templates are in `job_templates/`. docs/adding-a-job.md says what to change in the written files.
"""

import builtins
import calendar
import keyword
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.job_policies import JOB_POLICIES, Group
from seedtrust_ops.severity import Severity

new = typer.Typer(no_args_is_help=True, help="Write the files of a new job (see docs/adding-a-job.md).")

TEMPLATES = Path(__file__).parent / "job_templates"
CHECKOUT = Path(__file__).parents[2]
MAX_NAME_LENGTH = 40
WEEKDAYS = [day.lower() for day in calendar.day_name]


class InvalidJobName(SeedTrustError):
    """The name cannot be the name of a new job."""


class InvalidSchedule(SeedTrustError):
    """The schedule of a new job is not one that the command can write."""


class NotACheckout(SeedTrustError):
    """The command changes source files and there are none, or one does not look as expected."""


class Model(StrEnum):
    """What a job does: change rows, email people, or show figures as an asset."""

    PLAIN = "plain"
    EMAIL = "email"
    ASSET = "asset"


@dataclass(frozen=True)
class _Schedule:
    """When a job runs: the text in the README, the function to import, and the call that builds the schedule."""

    runs: str
    function: str
    call: str


@new.callback()
def _new() -> None:
    """Keep `job` a subcommand, although it is the only one."""


@new.command()
def job(
    name: Annotated[str, typer.Argument(help="The job's name, in snake_case, such as stale_cases.")],
    model: Annotated[
        Model, typer.Option(help="What it does: change rows, email people, or show figures.")
    ] = Model.PLAIN,
    severity: Annotated[Severity, typer.Option(help="How serious it is if it stops running.")] = Severity.LOW,
    group: Annotated[Group, typer.Option(help="The business area it belongs to.")] = Group.CASES,
    runs: Annotated[
        str, typer.Option(help="'daily 06:00', 'weekdays 07:30', 'monday 05:30' or 'every 5 minutes', Eastern time.")
    ] = "daily 06:00",
    expires_hours: Annotated[
        int, typer.Option(min=1, max=8_760, help="How long a run may wait in the queue, in hours.")
    ] = 6,
) -> None:
    """Write the files of a new job with a test that fails until its rule is written, and register the job."""
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise NotACheckout(
            "This command adds files to the source code. Run it from a git checkout in which `make setup` has run."
        )
    _check_name(name)
    schedule = _parse_schedule(runs, name)
    rule = f"seedtrust_ops/domain/reminders/{name}.py" if model is Model.EMAIL else f"seedtrust_ops/domain/{name}.py"
    files = {
        rule: f"{model}_rule.py.jinja",
        f"seedtrust_ops/jobs/{name}.py": f"{model}_job.py.jinja",
        f"seedtrust_ops_tests/jobs/test_{name}.py": f"{model}_test.py.jinja",
    }
    existing = [file for file in files if (CHECKOUT / file).exists()]
    if existing:
        raise InvalidJobName(f"{existing[0]} already exists. Nothing was changed. Choose another name.")
    changed = _register(name, model, severity, group, expires_hours, schedule.runs)
    written = {file: _render(template, name, schedule) for file, template in files.items()}
    for file, text in (written | changed).items():
        (CHECKOUT / file).write_text(text)
    _format([CHECKOUT / file for file in written])
    typer.echo("Wrote:")
    for file in written:
        typer.echo(f"  {file}")
    typer.echo("Added a line to:")
    for file in changed:
        typer.echo(f"  {file}")
    typer.echo(
        f"Next: write the rule in {rule}, then run `make check` and "
        f"`.venv/bin/pytest seedtrust_ops_tests/jobs/test_{name}.py seedtrust_ops_tests/test_declarations.py`."
    )


def _check_name(name: str) -> None:
    """Raise `InvalidJobName` unless the name can be that of a new job."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > MAX_NAME_LENGTH:
        raise InvalidJobName(
            f"A job can't be named {name!r}. Use at most {MAX_NAME_LENGTH} lower-case letters, digits and underscores, "
            "such as stale_cases."
        )
    if name in JOB_POLICIES:
        raise InvalidJobName(f"There already is a job {name}. Nothing was changed. Choose another name.")
    if name in _names_in_use():
        raise InvalidJobName(f"The name {name} is used by a module. Nothing was changed. Choose another name.")


def _names_in_use() -> set[str]:
    """Return the names that the new job's modules, its functions and its import would conflict with."""
    package = CHECKOUT / "seedtrust_ops"
    folders = (package / "domain", package / "domain" / "reminders", package / "jobs")
    definitions = (package / "definitions.py").read_text()
    return {
        *(path.stem for folder in folders for path in folder.iterdir()),
        *re.findall(r"\w+", definitions),
        *dir(builtins),
        "jobs",
        "domain",
    }


def _parse_schedule(runs: str, name: str) -> _Schedule:
    """Return the schedule that `runs` describes, for the job `name`."""
    text = " ".join(runs.lower().split())
    if match := re.fullmatch(r"every (\d+) minutes", text):
        minutes = int(match[1])
        if minutes and 60 % minutes == 0:
            return _Schedule(text, "interval_schedule", f"interval_schedule({name}, minutes={minutes})")
    if match := re.fullmatch(r"(daily|weekdays|\w+day) ([01]\d|2[0-3]):([0-5]\d)", text):
        when, hour, minute = match[1], int(match[2]), int(match[3])
        time = f"hour={hour}" + (f", minute={minute}" if minute else "")
        if when in ("daily", "weekdays"):
            function = "daily_schedule" if when == "daily" else "weekday_schedule"
            return _Schedule(text, function, f"{function}({name}, {time})")
        if when in WEEKDAYS:
            call = f"weekly_schedule({name}, {time}, on=Weekday.{when.upper()})"
            return _Schedule(text.capitalize(), "Weekday, weekly_schedule", call)
    raise InvalidSchedule(
        f"{runs!r} is not a schedule. Use 'daily 06:00', 'weekdays 07:30', 'monday 05:30' or 'every 5 minutes' (a "
        "number that divides 60). Other schedules are written by hand. Nothing was changed."
    )


def _register(
    name: str, model: Model, severity: Severity, group: Group, expires_hours: int, runs: str
) -> dict[str, str]:
    """Return the new text of each file that lists all jobs."""
    policy = (
        f'    "{name}": JobPolicy(Severity.{severity.name}, Group.{group.name}, timedelta(hours={expires_hours})),\n'
    )
    definitions = _insert("seedtrust_ops/definitions.py", r"    examples\.defs,\n", f"    {name}.defs,\n")
    changed = {
        "seedtrust_ops/definitions.py": _insert_import(definitions, f"    {name},\n"),
        "seedtrust_ops/job_policies.py": _insert("seedtrust_ops/job_policies.py", r'    "example": JobPolicy', policy),
        "README.md": _insert(
            "README.md", r"\| `example`,", f"| `{name}` | {runs} | {severity} | {expires_hours} h |\n"
        ),
    }
    if model is not Model.EMAIL:
        # Its rule is a module of its own in `domain`, and the import contract lists every module there.
        changed["pyproject.toml"] = _insert("pyproject.toml", r"(?<=\| user_presence)", f" | {name}")
    return changed


def _insert(file: str, before: str, new_text: str) -> str:
    """Return the text of `file` with `new_text` before the first match of the pattern `before`."""
    text = (CHECKOUT / file).read_text()
    match = re.search(before, text)
    if match is None:
        raise NotACheckout(
            f"{file} does not look as expected, so the job could not be registered there. Nothing was changed. Add the "
            "files by hand; docs/adding-a-job.md lists them."
        )
    return text[: match.start()] + new_text + text[match.start() :]


def _insert_import(definitions: str, line: str) -> str:
    """Return the text of definitions.py with `line` at its place among the imported job files."""
    start = definitions.index("from seedtrust_ops.jobs import (\n")
    head, block, tail = re.split(r"(?<=import \(\n)((?:    \w+,\n)+)(?=\))", definitions[start:], maxsplit=1)
    return definitions[:start] + head + "".join(sorted([*block.splitlines(keepends=True), line])) + tail


def _render(template: str, name: str, schedule: _Schedule) -> str:
    """Return a new file's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # The files themselves contain Jinja templates of emails, in double braces.
    environment = Environment(  # noqa: S701  it renders Python, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        variable_start_string="<<",
        variable_end_string=">>",
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        name=name,
        kind=name.replace("_", "-"),
        constant=name.upper(),
        runs=schedule.runs.capitalize(),
        schedule_function=schedule.function,
        schedule_call=schedule.call,
    )


def _format(files: Sequence[Path]) -> None:
    """Sort imports and wrap lines, which depend on the length of the name."""
    for command in (["check", "--fix", "--quiet", "--select=I"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, *files], check=True, cwd=CHECKOUT)  # noqa: S603
