"""`seedtrust-ops shadow compare`: what it takes for a time and for a log, and what it says where nobody looked."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.cli.shadow import UnreadableMoment, moment_of
from seedtrust_ops.domain.shadow_mode.comparison.emails import SentLetter, UnreadableLetterLog, read_letter_log

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OFFICE = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-17", datetime(2026, 11, 17, 5, tzinfo=UTC)),
        ("2026-11-17T06:00", datetime(2026, 11, 17, 11, tzinfo=UTC)),
        ("2026-11-17T06:00:00+00:00", datetime(2026, 11, 17, 6, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_offices_or_so_long_ago(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW, OFFICE) == moment


@pytest.mark.parametrize("text", ["yesterday", "7 days", "24.11.2026", ""])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnreadableMoment, match="7d for seven days ago"):
        moment_of(text, NOW, OFFICE)


def test_a_log_of_letters_is_read_by_its_columns() -> None:
    lines = ["to,kind,subject,sent_at", "Ann@Staff.example,case-close,Closing,2026-11-24T06:00:00-05:00"]
    assert read_letter_log(lines) == [
        SentLetter(datetime(2026, 11, 24, 11, tzinfo=UTC), "case-close", "ann@staff.example")
    ]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["sent_at,to", "2026-11-24T06:00:00-05:00,a@b.example"], "needs the columns sent_at, kind, to"),
        (["sent_at,kind,to", "2026-11-24 06:00,case-close,a@b.example"], "Line 2 of the log"),
        (["sent_at,kind,to", "2026-11-24T06:00:00Z,newsletter,a@b.example"], "one of case-close, balance-reminder"),
        (["sent_at,kind,to", "2026-11-24T06:00:00Z,case-close"], "Line 2 of the log"),
    ],
)
def test_a_log_that_can_not_be_read_names_the_line_and_what_it_should_hold(lines: list[str], sentence: str) -> None:
    with pytest.raises(UnreadableLetterLog, match=sentence):
        read_letter_log(lines)


@pytest.mark.usefixtures("bank_environment")
def test_where_no_job_was_in_shadow_it_says_so_and_exits_well(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["shadow", "compare", "--since", "7d", "--json"])
    assert answer.exit_code == 0
    told = json.loads(answer.stdout)
    assert told["differences"] == 0
    assert "it has never looked in shadow" in told["jobs"][0]["note"]
    refused = CliRunner().invoke(app, ["shadow", "compare", "--since", "soon"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("'soon' is no time.")
