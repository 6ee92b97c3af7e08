"""Every link, repository path, module and command that the documents mention exists; every decision record is linked.

The pages are README.md, docs/, bench/ and any page of the chaos tests. Rows of the runbook are checked by test_runbook,
examples of docs/client.md by the client's tests.
"""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import seedtrust_ops
from seedtrust_ops.cli.main import app
from seedtrust_ops_tests.deploy.environment_variables import BOTO3_VARIABLES, numeric_defaults, setting_variables

ROOT = Path(seedtrust_ops.__file__).parents[1]
DOCS = ROOT / "docs"
RECORDS = DOCS / "decisions"
PAGES = sorted(
    [
        ROOT / "README.md",
        *DOCS.rglob("*.md"),
        *(ROOT / "bench").glob("*.md"),
        *(ROOT / "seedtrust_ops_tests" / "chaos").rglob("*.md"),
    ]
)
TOP_LEVEL = ("seedtrust_ops", "seedtrust_ops_tests", "docs", "deploy", "bench", "requirements")
README_MAX_LINES = 150

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(rf"^(?:{'|'.join(TOP_LEVEL)})/[\w./-]*$")
MODULE_NAME = r"seedtrust_ops(?:_tests)?(?:\.\w+)+"
COMMAND = re.compile(r"\bseedtrust-ops((?: +[a-z][\w-]*)+)")
TARGET = re.compile(r"\bmake ((?:[a-z]+))")
CITATION = re.compile(r"(?<![\w/])(?:docs/[\w/.-]+\.(?:md|png)|deploy/[\w/.-]+\.\w+)\b")
UNAVAILABLE = re.compile(
    r"\bdesign, section|\bdesign's (?:table|promises)|\b(?:design|findings|glossary)\.md|\bissue \d{1,3}\b",
    re.IGNORECASE,
)
"""References to documents outside the repository. Dagster's issues have five digits."""


def prose(text: str) -> str:
    return FENCE.sub("", text)


def code_spans(text: str) -> Iterator[str]:
    yield from (span.strip() for span in CODE_SPAN.findall(prose(text)))


def shell_lines(text: str) -> Iterator[str]:
    for language, block in FENCE.findall(text):
        if language in ("sh", "console", "bash", ""):
            yield from (line.partition("#")[0] for line in block.splitlines())


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of the page whose target does not exist."""
    targets = (link.partition("#")[0] for link in LINK.findall(prose(text)))
    return [target for target in targets if target and "://" not in target and not (page.parent / target).exists()]


def missing_paths(text: str) -> list[str]:
    """Return the repository paths in backticks that do not exist."""
    return [span for span in code_spans(text) if PATH.match(span) and not (ROOT / span).exists()]


def missing_modules(text: str) -> list[str]:
    """Return the dotted names in backticks, `-m` options and examples that are neither modules nor names in one."""
    spans = {word for span in code_spans(text) for word in span.split() if re.fullmatch(MODULE_NAME, word)}
    blocks = {word for _, block in FENCE.findall(text) for word in re.findall(MODULE_NAME, block)}
    return sorted(module for module in spans | blocks if not _exists(module))


def _exists(name: str) -> bool:
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    parent, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(parent), attribute)
    except ModuleNotFoundError:
        return False


def unknown_commands(text: str) -> list[str]:
    """Return the `seedtrust-ops` commands in backticks and shell examples that the command line does not have."""
    root = typer.main.get_command(app)
    unknown = []
    for source in (*code_spans(text), *shell_lines(text)):
        for words in COMMAND.findall(source):
            command: click.Command = root
            for word in words.split():
                if not hasattr(command, "commands"):
                    break
                if word not in command.commands:
                    unknown.append(f"seedtrust-ops{words}")
                    break
                command = command.commands[word]
    return unknown


def unknown_targets(text: str) -> list[str]:
    """Return the `make` targets in backticks and shell examples that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    sources = [*(span for span in code_spans(text) if span.startswith("make ")), *shell_lines(text)]
    return [target for source in sources for target in TARGET.findall(source) if target not in targets]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_exist(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    assert missing_paths(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_exist(page: Path) -> None:
    assert missing_modules(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert (unknown_commands(text), unknown_targets(text)) == ([], [])


def test_readme_fits_a_first_day() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_MAX_LINES


def test_every_command_is_in_the_readme() -> None:
    mentioned = {word for span in code_spans((ROOT / "README.md").read_text()) for word in span.split()}
    assert typer.main.get_command(app).commands.keys() - mentioned == set()


def test_configuration_lists_every_variable() -> None:
    mentioned = set(CODE_SPAN.findall((DOCS / "configuration.md").read_text()))
    assert (setting_variables().keys() | BOTO3_VARIABLES) - mentioned == set()


def test_configuration_defaults_match_the_settings() -> None:
    documented = {}
    for line in (DOCS / "configuration.md").read_text().splitlines():
        names, _, rest = line.removeprefix("| ").partition(" | ")
        defaults = rest.partition(" | ")[0].split(", ")
        if line.startswith("| `"):
            documented |= dict(zip(CODE_SPAN.findall(names), defaults, strict=False))
    expected = {name: f"{default:g}" for name, default in numeric_defaults().items()}
    required = {name for name, is_required in setting_variables().items() if is_required}
    assert {name: documented.get(name) for name in expected} == expected
    assert {name for name in required if not documented[name].startswith("required")} == set()


def test_decision_records_are_complete_and_indexed() -> None:
    index = (RECORDS / "README.md").read_text()
    records = sorted(path for path in RECORDS.glob("*.md") if path.name != "README.md")
    assert sorted(set(LINK.findall(index))) == [path.name for path in records]
    for record in records:
        text = record.read_text()
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"], record.name
        assert "\nCode: " in text, record.name


def source_files() -> Iterator[Path]:
    for folder in TOP_LEVEL:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".sql", ".yaml", ".md", ".service", ".target", ".jinja", ".example", ".json"):
                yield path
    yield from (ROOT / name for name in ("Makefile", "pyproject.toml", "dagster.yaml", "workspace.yaml", "README.md"))


def test_sources_cite_only_documents_that_exist() -> None:
    missing, outside = set(), set()
    for path in source_files():
        if path == Path(__file__):
            continue
        text = path.read_text()
        missing |= {(name_of(path), citation) for citation in CITATION.findall(text) if not (ROOT / citation).exists()}
        outside |= {(name_of(path), citation) for citation in UNAVAILABLE.findall(text)}
    assert (missing, outside) == (set(), set())


def test_records_are_cited_by_their_code() -> None:
    """Each record is named in at least one of the modules that it lists."""
    uncited = [
        record.name
        for record in sorted(RECORDS.glob("*.md"))
        if record.name != "README.md"
        and not any(
            f"docs/decisions/{record.name}" in (ROOT / path).read_text()
            for path in code_spans(record.read_text())
            if path.endswith(".py") and (ROOT / path).exists()
        )
    ]
    assert uncited == []


NO_SUCH_MODULE = ".".join(["seedtrust_ops", "no_such_module"])


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda text: broken_links(ROOT / "README.md", text), "See [the runbook](docs/no-such-page.md)."),
        (lambda text: broken_links(ROOT / "README.md", text), "![a chart](docs/pictures/none.png)"),
        (missing_paths, "Rules are in `seedtrust_ops/domain/no_such_module.py`."),
        (missing_modules, f"Run `python -m {NO_SUCH_MODULE}`."),
        (missing_modules, f"```python\nimport {NO_SUCH_MODULE}\n```\n"),
        (unknown_commands, "Run `seedtrust-ops no-such-command`."),
        (unknown_commands, "```sh\nseedtrust-ops transfers no-such-command\n```\n"),
        (unknown_targets, "Run `make nothing`."),
    ],
    ids=["link", "image", "path", "module", "module in a block", "command", "subcommand", "make target"],
)
def test_checks_find_what_is_missing(check: object, text: str) -> None:
    assert callable(check)
    assert len(check(text)) == 1
