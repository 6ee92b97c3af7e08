"""`seedtrust-ops shadow compare`: time formats, the legacy email log, and jobs that never ran in shadow mode."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.cli.shadow import InvalidTime, parse_time
from seedtrust_ops.domain.shadow_mode.comparison.emails import SentEmail, UnreadableEmailLog, read_email_log

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OFFICE = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-17", datetime(2026, 11, 17, 5, tzinfo=UTC)),
        ("2026-11-17T06:00", datetime(2026, 11, 17, 11, tzinfo=UTC)),
        ("2026-11-17T06:00:00+00:00", datetime(2026, 11, 17, 6, tzinfo=UTC)),
    ],
)
def test_times_are_in_the_office_time_zone_or_an_age(text: str, expected: datetime) -> None:
    assert parse_time(text, NOW, OFFICE) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "7 days", "24.11.2026", "", "999999999999d", "9" * 5_000 + "d", "9999-12-31T23:00"]
)
def test_invalid_time_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(InvalidTime, match="an age like 7d"):
        parse_time(text, NOW, OFFICE)


def test_email_log_is_read_by_column_name() -> None:
    lines = ["to,kind,subject,sent_at", "Ann@Staff.example,case-close,Closing,2026-11-24T06:00:00-05:00"]
    assert read_email_log(lines) == [
        SentEmail(datetime(2026, 11, 24, 11, tzinfo=UTC), "case-close", "ann@staff.example")
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sent_at,to", "2026-11-24T06:00:00-05:00,a@b.example"], "needs the columns sent_at, kind, to"),
        (["sent_at,kind,to", "2026-11-24 06:00,case-close,a@b.example"], "Line 2 of the email log"),
        (["sent_at,kind,to", "2026-11-24T06:00:00Z,newsletter,a@b.example"], "one of case-close, balance-reminder"),
        (["sent_at,kind,to", "2026-11-24T06:00:00Z,case-close"], "Line 2 of the email log"),
    ],
)
def test_invalid_email_log_names_the_line_and_the_expected_format(lines: list[str], message: str) -> None:
    with pytest.raises(UnreadableEmailLog, match=message):
        read_email_log(lines)


@pytest.mark.usefixtures("bank_environment")
def test_comparison_without_shadow_runs_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["shadow", "compare", "--since", "7d", "--json"])
    assert result.exit_code == 0
    output = json.loads(result.stdout)
    assert output["differences"] == 0
    assert "it has never run in shadow mode" in output["jobs"][0]["note"]
    rejected = CliRunner().invoke(app, ["shadow", "compare", "--since", "soon"])
    assert rejected.exit_code == 1
    assert rejected.stderr.startswith("'soon' is not a time.")
