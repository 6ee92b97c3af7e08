"""Every kind of email renders for people, and no user's text in it becomes markup or a header."""

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.cli.notifications import import_email_kinds
from seedtrust_ops.domain.notifications.kind_registry import (
    KINDS,
    MAX_NAME_CHARS,
    MAX_SENTENCE_CHARS,
    TableEmailKind,
    UnknownPreview,
    examples,
)
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS
from seedtrust_ops.domain.notifications.renderer import (
    MAX_SUBJECT_CHARS,
    TEMPLATES,
    EmailRenderer,
    UnsendableEmail,
    format_cents,
)
from seedtrust_ops.domain.outbox.email_sink import DueEmail, build_message, message_id
from seedtrust_ops.domain.outbox.store import Attachment
from seedtrust_ops.formatting import MAX_TEXT_CHARS, disarm_links

SENDER = "SeedTrust Escrow <escrow@seedtrust.example>"
RENDERER = EmailRenderer(ZoneInfo("America/New_York"))
INJECTION = "<script>alert('x')</script> & \"Co\"\r\nBcc: thief@example.test"
VOID_ELEMENTS = {"meta", "br"}
import_email_kinds()
EXAMPLES = examples()


class WellFormedHtml(HTMLParser):
    """Asserts that every element is closed in order, and collects the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def with_injections(value: object, injection: str = INJECTION) -> object:
    """Return the value with every text in it replaced by an injection; times and dates stay as they are."""
    if isinstance(value, dict):
        return {
            name: item if name.endswith(("_at", "_on", "as_of")) else with_injections(item, injection)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [with_injections(item, injection) for item in value]
    return injection if isinstance(value, str) else value


def test_every_kind_has_templates_unless_it_is_a_table() -> None:
    templates = {path.name for path in TEMPLATES.iterdir() if not path.name.startswith("_")}
    names = [name for name, kind in KINDS.items() if not isinstance(kind, TableEmailKind)]
    assert templates == {f"{name}.{form}.jinja" for name in names for form in ("txt", "html")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_renders_well_formed_without_placeholders(name: str) -> None:
    rendered = RENDERER.render_example(name)
    assert "table" in WellFormedHtml(rendered.html).tags
    for form in (rendered.subject, rendered.text, rendered.html):
        assert form
        assert not any(leftover in form for leftover in ("{{", "{%", "None", "Undefined", "T1", "+00:00", "_cents"))
    assert len(rendered.subject) < 90
    assert "\n\n\n" not in rendered.text


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_required_variable_is_needed(name: str) -> None:
    example = EXAMPLES[name]
    kind = KINDS[example.kind]
    assert set(example.variables) <= set(kind.variables) | set(kind.optional)
    for variable in kind.variables:
        without = {key: value for key, value in example.variables.items() if key != variable}
        with pytest.raises(UnsendableEmail, match=variable):
            RENDERER.render(kind.name, without, attachment_name=example.attachment_name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_user_text_never_becomes_markup_or_a_header(name: str) -> None:
    example = EXAMPLES[name]
    variables = with_injections(dict(example.variables))
    assert isinstance(variables, dict)
    attachment = Attachment(INJECTION, "text/x", b"1") if example.attachment_name else None
    due_email = DueEmail(1, "key", example.kind, "a@example.test", INJECTION, "", variables, attachment)
    message, subject = build_message(due_email, RENDERER, SENDER)
    parsed = message_from_bytes(message.as_bytes(), policy=policy.default)

    assert parsed["Bcc"] is None
    assert "\n" not in subject
    assert str(parsed["Subject"]) == subject
    assert len(parsed["To"].addresses) == 1
    body = parsed.get_body(("html",))
    assert body is not None
    html = body.get_content()
    assert "script" not in WellFormedHtml(html).tags
    assert "&lt;script&gt;" in html


LINKS = ("https://evil.example/pay", "www.evil.example", "mallory@evil.example", "HTTP://10.0.0.1/x", "evil.example/y")
CUSTOMER_EXAMPLES = [name for name, example in EXAMPLES.items() if KINDS[example.kind] not in ALERT_KINDS]


LONGEST_TEXTS = {
    "dr-approved": MAX_TEXT_CHARS,
    "report-failed": MAX_TEXT_CHARS,
    "transfer-settled": MAX_TEXT_CHARS,
    "transfer-failed": MAX_SENTENCE_CHARS,
    "transfer-rejected": MAX_SENTENCE_CHARS,
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", CUSTOMER_EXAMPLES)
def test_web_addresses_that_people_typed_become_no_links(name: str, link: str) -> None:
    example = EXAMPLES[name]
    typed = with_injections({**example.variables, "link": None, "link_expires_at": None}, f"pay at {link} now")
    assert isinstance(typed, dict)
    rendered = RENDERER.render(
        example.kind, typed, recipient_name=f"Dana {link}", attachment_name="report.csv", subject=""
    )
    for form in (rendered.subject, rendered.text, rendered.html):
        assert link not in form
        assert "evil.example" not in form
        assert "://10" not in form
    assert "pay at " in rendered.text


@pytest.mark.parametrize("name", CUSTOMER_EXAMPLES)
def test_long_texts_that_people_typed_are_cut(name: str) -> None:
    example = EXAMPLES[name]
    typed = with_injections({**example.variables, "link": None, "link_expires_at": None}, "x" * 2_001)
    assert isinstance(typed, dict)
    rendered = RENDERER.render(example.kind, typed, recipient_name="y" * 2_001, attachment_name="report.csv")
    shown = [len(run) for run in re.findall(r"[xy]{20,}", rendered.html)]
    # A table has one explanation per row.
    most = len(example.variables["rows"]) if example.kind == "transfer-failed" else 1
    assert sum(length > MAX_NAME_CHARS for length in shown) <= most
    assert max(shown) == LONGEST_TEXTS.get(example.kind, MAX_NAME_CHARS) - 1
    assert "…" in rendered.text
    assert len(rendered.subject) <= MAX_SUBJECT_CHARS


def test_description_is_attributed_to_the_person_who_wrote_it() -> None:
    hostile = "SeedTrust asks you to confirm.\nYour account is on hold. " * 10
    rendered = RENDERER.render("dr-approved", {**EXAMPLES["dr-approved"].variables, "description": hostile})
    before, _, after = rendered.text.partition("SeedTrust did\nnot write or check it:\n\n")
    quoted = after.partition("\n\n")[0].splitlines()
    assert before.endswith("The description, as written by the person who made the request. ")
    assert len(quoted) > 3
    assert all(line.startswith("> ") for line in quoted)
    assert "on hold" not in rendered.text.replace("\n".join(quoted), "")
    assert "by the person who made the request. SeedTrust did not write or check it:" in rendered.html


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://a.example/b?c=d.e", "https[:]//a[.]example/b?c=d.e"),
        ("Dr. Smith, St. John, 2.5 hours, Ph.D., section 4.", "Dr. Smith, St. John, 2.5 hours, Ph.D., section 4."),
        ("12:30, ratio 1:2, c:/x", "12:30, ratio 1:2, c:/x"),
        ("Ëvil.éxample", "Ëvil[.]éxample"),
    ],
)
def test_disarming_changes_web_addresses_only(text: str, shown: str) -> None:
    assert disarm_links(text) == shown


@given(text=st.text(max_size=80))
def test_subject_and_name_cannot_break_out_of_their_headers(text: str) -> None:
    variables = EXAMPLES["case-close"].variables
    due_email = DueEmail(1, "key", "case-close", "a@example.test", text, "x" + text, variables, None)
    message, _ = build_message(due_email, RENDERER, SENDER)
    parsed = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert set(parsed.keys()) == set(message.keys())
    assert [address.addr_spec for address in parsed["To"].addresses] == ["a@example.test"]


def test_message_id_depends_on_key_and_domain_only() -> None:
    first = message_id("report:1:2", SENDER)
    assert first == message_id("report:1:2", "Somebody <other@seedtrust.example>")
    assert first != message_id("report:1:3", SENDER)
    assert first != message_id("report:1:2", "escrow@elsewhere.example")
    assert first.endswith("@seedtrust.example>")


@pytest.mark.parametrize(
    ("cents", "expected"),
    [(0, "$0.00"), (5, "$0.05"), (-123_456, "-$1,234.56"), (10**15 + 1, "$10,000,000,000,000.01")],
)
def test_cents_are_formatted_as_dollars(cents: int, expected: str) -> None:
    assert format_cents(cents) == expected


@pytest.mark.parametrize("cents", ["12", 1.5, True, None])
def test_cents_that_are_not_an_integer_are_rejected(cents: object) -> None:
    with pytest.raises(TypeError, match="not a whole number of cents"):
        format_cents(cents)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-03-03T05:30:00+00:00", "March 3, 2026 at 12:30 AM EST"),
        ("2026-07-04T16:00:00Z", "July 4, 2026 at 12:00 PM EDT"),
        ("2026-11-01T06:30:00.123456+00", "November 1, 2026 at 1:30 AM EST"),
        (datetime(2026, 1, 1, 14, 5, tzinfo=UTC).isoformat(), "January 1, 2026 at 9:05 AM EST"),
    ],
)
def test_times_are_shown_in_the_office_time_zone(time: str, expected: str) -> None:
    variables = {**EXAMPLES["dr-approved"].variables, "approved_at": time}
    assert expected in RENDERER.render("dr-approved", variables).text


def test_time_without_an_offset_is_rejected() -> None:
    variables = {**EXAMPLES["dr-approved"].variables, "approved_at": "2026-03-03T05:30:00"}
    with pytest.raises(UnsendableEmail, match="has no offset from UTC"):
        RENDERER.render("dr-approved", variables)


def test_late_case_close_email_says_it_is_overdue() -> None:
    today, late = RENDERER.render_example("case-close"), RENDERER.render_example("case-close-late")
    assert "is scheduled to close on Tuesday, March 3, 2026" in today.text
    assert "was scheduled to close on Friday, February 27, 2026" in late.text
    assert late.subject == "Closing is overdue: case ST-1042, due Friday, February 27, 2026"


def test_case_without_an_account_shows_no_balance() -> None:
    variables = {**EXAMPLES["case-close"].variables, "balance_cents": None}
    assert "balance" not in RENDERER.render("case-close", variables).text


def test_unknown_preview_lists_the_valid_names() -> None:
    with pytest.raises(UnknownPreview, match="Choose one of: alert-opened, alert-risen,"):
        RENDERER.render_example("birthday")


def test_digest_text_has_one_line_per_part_of_an_alert() -> None:
    digest = EXAMPLES["alert-digest"]
    assert RENDERER.render(digest.kind, digest.variables).text.splitlines()[:8] == [
        "Alerts for Tuesday, March 3, 2026",
        "",
        "NEW",
        "",
        "MEDIUM: error spike, job aws_status_check",
        "The last 2 runs of aws_status_check failed. The error is in the Dagster UI.",
        "Opened March 2, 2026 at 2:10 PM EST.",
        "",
    ]
