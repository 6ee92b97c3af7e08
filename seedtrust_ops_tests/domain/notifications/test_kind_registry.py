"""A kind of email is declared once, anywhere; one that is a table needs nothing but its columns and sample rows."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from seedtrust_ops.domain.notifications import Column, NotificationKind, TableEmailKind, Urgency
from seedtrust_ops.domain.notifications.kind_registry import KINDS, MAX_TABLE_ROWS, examples, kind_names_by_urgency
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, RenderedEmail, UnsendableEmail
from seedtrust_ops_tests.support.email_kinds import kinds_of_a_test

RENDERER = EmailRenderer(ZoneInfo("America/New_York"))
COLUMNS = (
    Column("case_number", "Case"),
    Column("last_activity_on", "Last activity", format="day"),
    Column("seen_at", "Last seen", format="date_time"),
    Column("balance_cents", "Balance", format="dollars"),
    Column("requests", "Requests", format="count"),
)
ROW = {
    "case_number": "ST-1042",
    "last_activity_on": "2026-01-05",
    "seen_at": "2026-01-05T14:05:00Z",
    "balance_cents": 128_450,
    "requests": 1_200,
}


@pytest.fixture(autouse=True)
def undeclared_afterwards() -> Iterator[None]:
    """The kinds that a test declares are unknown again after it."""
    with kinds_of_a_test():
        yield


def declare(**changes: Any) -> TableEmailKind:
    columns = {
        "name": "invented-cases",
        "recipients": "Case managers.",
        "subject": "{{ count | pluralize('case') }} without activity",
        "introduction": "As of {{ as_of | day }}, nothing has happened in {{ count | pluralize('case') }}.",
        "columns": COLUMNS,
        "example": [ROW, {**ROW, "case_number": "ST-7", "balance_cents": -5, "last_activity_on": None}],
        "why": "You are receiving this email because you manage these cases.",
    } | changes
    return TableEmailKind(**columns)


def render(**changes: Any) -> RenderedEmail:
    return RENDERER.render("invented-cases", {"as_of": "2026-03-03", "rows": [ROW]} | changes)


def test_table_email_is_rendered_from_its_declaration_alone() -> None:
    declare()
    email = RENDERER.render_example("invented-cases")
    assert email.subject == "2 cases without activity"
    assert email.text.splitlines() == [
        "Hello Maria Alvarez,",
        "",
        "As of Tuesday, March 3, 2026, nothing has happened in 2 cases.",
        "",
        "Case     Last activity  Last seen                   Balance  Requests",
        "ST-1042  Jan 5, 2026    Jan 5, 2026, 9:05 AM EST  $1,284.50     1,200",
        "ST-7     -              Jan 5, 2026, 9:05 AM EST     -$0.05     1,200",
        "",
        "SeedTrust Escrow",
        "You are receiving this email because you manage these cases.",
    ]
    assert '<td align="right"' in email.html
    assert all(text in email.html for text in ("ST-7", "Jan 5, 2026", "$1,284.50", "Last activity"))


def test_rows_left_out_are_counted_and_said() -> None:
    declare()
    email = render(rows_left_out=1)
    assert email.subject == "2 cases without activity"
    assert "1 more is not listed in this email." in email.text
    assert "1 more is not listed in this email." in email.html
    assert "not listed" not in render().text


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"case_number": "ST-1"}, "row 1 has no last_activity_on"),
        ({**ROW, "balance_cents": "12"}, "balance_cents of row 1 is invalid: 12 is not a whole number of cents"),
        ({**ROW, "requests": 1.5}, "requests of row 1 is invalid: 1.5 is not a whole number"),
        ({**ROW, "last_activity_on": "soon"}, "last_activity_on of row 1 is invalid"),
        ({**ROW, "seen_at": "2026-01-05T14:05:00"}, "has no offset from UTC"),
    ],
    ids=["missing", "dollars", "count", "day", "time"],
)
def test_invalid_cell_is_named_by_column_and_row(row: dict[str, Any], reason: str) -> None:
    declare()
    with pytest.raises(UnsendableEmail, match=reason):
        render(rows=[row])


def test_long_name_is_shown_in_full_and_moves_only_its_own_line() -> None:
    declare(columns=(Column("name", "Name"), Column("requests", "Requests", format="count")))
    lines = render(rows=[{"name": "x" * 60, "requests": 1}, {"name": "y", "requests": 2}]).text.splitlines()
    assert f"{'x' * 60}         1" in lines
    assert f"{'y':40}         2".rstrip() in lines


def test_variables_hold_the_first_hundred_rows_as_json() -> None:
    kind = declare(columns=COLUMNS[:3])
    row = {
        "case_number": "ST-1",
        "last_activity_on": date(2026, 1, 5),
        "seen_at": datetime(2026, 1, 5, 14, tzinfo=UTC),
        "not a column": 1,
    }
    variables = kind.variables_for(date(2026, 3, 3), [row] * (MAX_TABLE_ROWS + 2))
    assert (variables["as_of"], len(variables["rows"]), variables["rows_left_out"]) == ("2026-03-03", 100, 2)
    assert variables["rows"][0] == {
        "case_number": "ST-1",
        "last_activity_on": "2026-01-05",
        "seen_at": "2026-01-05T14:00:00+00:00",
    }
    with pytest.raises(ValueError, match="A row of the email invented-cases has no value for: seen_at"):
        kind.variables_for(date(2026, 3, 3), [{"case_number": "ST-1", "last_activity_on": None}])


def test_name_of_a_kind_or_an_example_is_taken_once() -> None:
    declare()
    with pytest.raises(ValueError, match="Two kinds of email are named 'invented-cases'"):
        declare()
    with pytest.raises(ValueError, match="an example whose name is taken: invented-cases-cut"):
        NotificationKind(name="invented-cases-cut", recipients="", subject="", variables={}, example={})
    assert "invented-cases-cut" not in KINDS
    assert {"invented-cases", "invented-cases-one", "invented-cases-cut"} < examples().keys()


def test_kinds_are_ordered_by_urgency_wherever_they_are_declared() -> None:
    declare(urgency=Urgency.ALERT)
    names = kind_names_by_urgency()
    assert set(names[:4]) == {"alert-opened", "alert-resolved", "alert-digest", "invented-cases"}
    assert names[-1] == "dr-approved"
