"""Every kind of letter can be written, in words, and nobody's text in it becomes markup or a header."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.domain.notifications.notification_kinds import KINDS
from seedtrust_ops.domain.notifications.previews import EXAMPLES, UnknownLetter, preview
from seedtrust_ops.domain.notifications.renderer import TEMPLATES, EmailRenderer, UnusableLetter, dollars
from seedtrust_ops.domain.outbox.email_claims import DueLetter
from seedtrust_ops.domain.outbox.email_store import Attachment
from seedtrust_ops.domain.outbox.mime_messages import message_id, write_out

SENDER = "SeedTrust Escrow <escrow@seedtrust.example>"
STATIONERY = EmailRenderer(ZoneInfo("America/New_York"))
NASTY = "<script>alert('x')</script> & \"Co\"\r\nBcc: thief@example.test"
VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed, in order, and collects the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def spoiled(value: object) -> object:
    """The same value with every text in it replaced by a nasty one; moments and days stay what they are."""
    if isinstance(value, dict):
        return {name: one if name.endswith(("_at", "_on", "as_of")) else spoiled(one) for name, one in value.items()}
    if isinstance(value, list):
        return [spoiled(one) for one in value]
    return NASTY if isinstance(value, str) else value


def test_every_kind_has_its_templates_and_an_example_and_the_other_way_round() -> None:
    templates = {path.name for path in TEMPLATES.iterdir() if not path.name.startswith("_")}
    assert templates == {f"{kind}.{form}.jinja" for kind in KINDS for form in ("txt", "html")}
    assert {example.kind for example in EXAMPLES.values()} == set(KINDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_can_be_written_with_whole_html_and_without_loose_ends(name: str) -> None:
    letter = preview(name, STATIONERY)
    assert "table" in Balance(letter.html).tags
    for form in (letter.subject, letter.text, letter.html):
        assert form
        assert not any(left in form for left in ("{{", "{%", "None", "Undefined", "T1", "+00:00", "_cents"))
    assert len(letter.subject) < 90
    assert "\n\n\n" not in letter.text


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_variable_that_is_listed_is_needed(name: str) -> None:
    example = EXAMPLES[name]
    kind = KINDS[example.kind]
    assert set(example.variables) <= set(kind.variables) | set(kind.optional)
    for variable in kind.variables:
        without = {key: value for key, value in example.variables.items() if key != variable}
        with pytest.raises(UnusableLetter, match=variable):
            STATIONERY.write(kind.name, without, attachment_name=example.attachment_name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_text_of_users_never_becomes_markup_or_a_header(name: str) -> None:
    example = EXAMPLES[name]
    variables = spoiled(dict(example.variables))
    assert isinstance(variables, dict)
    attachment = Attachment(NASTY, "text/x", b"1") if example.attachment_name else None
    letter = DueLetter(1, "key", example.kind, 1, "a@example.test", NASTY, "", variables, attachment)
    message, subject = write_out(letter, STATIONERY, SENDER)
    read = message_from_bytes(message.as_bytes(), policy=policy.default)

    assert read["Bcc"] is None
    assert "\n" not in subject
    assert str(read["Subject"]) == subject
    assert len(read["To"].addresses) == 1
    body = read.get_body(("html",))
    assert body is not None
    html = body.get_content()
    assert "script" not in Balance(html).tags
    assert "&lt;script&gt;" in html


@given(text=st.text(max_size=80))
def test_no_subject_and_no_name_can_break_out_of_its_header(text: str) -> None:
    variables = EXAMPLES["case-close"].variables
    letter = DueLetter(1, "key", "case-close", 1, "a@example.test", text, "x" + text, variables, None)
    message, _ = write_out(letter, STATIONERY, SENDER)
    read = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert set(read.keys()) == set(message.keys())
    assert [one.addr_spec for one in read["To"].addresses] == ["a@example.test"]


def test_message_id_follows_from_key_and_domain_alone() -> None:
    one = message_id("report:1:2", SENDER)
    assert one == message_id("report:1:2", "Somebody <other@seedtrust.example>")
    assert one != message_id("report:1:3", SENDER)
    assert one != message_id("report:1:2", "escrow@elsewhere.example")
    assert one.endswith("@seedtrust.example>")


@pytest.mark.parametrize(
    ("cents", "said"), [(0, "$0.00"), (5, "$0.05"), (-123_456, "-$1,234.56"), (10**15 + 1, "$10,000,000,000,000.01")]
)
def test_money_is_told_in_dollars(cents: int, said: str) -> None:
    assert dollars(cents) == said


@pytest.mark.parametrize("cents", ["12", 1.5, True, None])
def test_what_is_no_number_of_cents_is_refused(cents: object) -> None:
    with pytest.raises(TypeError, match="no whole number of cents"):
        dollars(cents)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2026-03-03T05:30:00+00:00", "March 3, 2026 at 12:30 AM EST"),
        ("2026-07-04T16:00:00Z", "July 4, 2026 at 12:00 PM EDT"),
        ("2026-11-01T06:30:00.123456+00", "November 1, 2026 at 1:30 AM EST"),
        (datetime(2026, 1, 1, 14, 5, tzinfo=UTC).isoformat(), "January 1, 2026 at 9:05 AM EST"),
    ],
)
def test_moments_are_told_on_the_office_s_wall_clock(moment: str, said: str) -> None:
    variables = {**EXAMPLES["dr-approved"].variables, "approved_at": moment}
    assert said in STATIONERY.write("dr-approved", variables).text


def test_moment_without_an_offset_is_refused() -> None:
    variables = {**EXAMPLES["dr-approved"].variables, "approved_at": "2026-03-03T05:30:00"}
    with pytest.raises(UnusableLetter, match="has no offset from UTC"):
        STATIONERY.write("dr-approved", variables)


def test_late_case_close_says_so() -> None:
    today, late = preview("case-close", STATIONERY), preview("case-close-late", STATIONERY)
    assert "is to be closed today" in today.text
    assert "was to be closed on Friday, February 27, 2026" in late.text
    assert late.subject == "Closing is overdue: case ST-1042, due Friday, February 27, 2026"


def test_case_without_an_account_is_told_without_a_balance() -> None:
    variables = {**EXAMPLES["case-close"].variables, "balance_cents": None}
    assert "balance" not in STATIONERY.write("case-close", variables).text


def test_unknown_preview_names_those_that_there_are() -> None:
    with pytest.raises(UnknownLetter, match="there are dr-approved, case-close,"):
        preview("birthday", STATIONERY)
