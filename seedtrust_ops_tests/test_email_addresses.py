"""Email addresses are checked in one place, and written into headers that every mail server carries unchanged."""

import re
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import seedtrust_ops
from seedtrust_ops.email_addresses import (
    InvalidEmailAddress,
    format_mailbox,
    format_text,
    is_email_address,
    parse_mailbox,
    to_ascii_address,
)
from seedtrust_ops.formatting import single_line
from seedtrust_ops.resources.smtp import _CRLF_POLICY

PACKAGE = Path(seedtrust_ops.__file__).parent
ENCODED_WORD = re.compile(rb"=\?[^?]+\?[^?]\?[^?]*\?=")
LONG_ADDRESS = f"{'a' * 64}@{'b' * 60}.{'c' * 60}.example"
NAMES = st.text(st.characters(codec="utf-8"), max_size=100).map(single_line)


@pytest.mark.parametrize(
    ("text", "ascii_form"),
    [
        ("dana@example.test", "dana@example.test"),
        (" \u00a0dana@example.test\n", "dana@example.test"),
        ("O'Neil+escrow/7@mail.example.test", "O'Neil+escrow/7@mail.example.test"),
        ("root@localhost", "root@localhost"),
        ("dana@münchen.example", "dana@xn--mnchen-3ya.example"),
        ("dana@BÜRO.münchen.example", "dana@xn--bro-hoa.xn--mnchen-3ya.example"),
        ("dana@faß.example", "dana@xn--fa-hia.example"),
        ("dana@李.example", "dana@xn--7qv.example"),
        ("dana@xn--mnchen-3ya.example", "dana@xn--mnchen-3ya.example"),
        (LONG_ADDRESS, LONG_ADDRESS),
    ],
)
def test_address_is_accepted_with_its_domain_in_ascii(text: str, ascii_form: str) -> None:
    assert to_ascii_address(text) == ascii_form
    assert is_email_address(text)


INVALID = [
    ("", "it is empty"),
    (" \u00a0", "it is empty"),
    ("nobody", "it needs a name, an @ and a domain"),
    ("@example.test", "it needs a name, an @ and a domain"),
    ("dana@", "it needs a name, an @ and a domain"),
    ("dana@home@example.test", "U+0040 COMMERCIAL AT is not possible before the @"),
    ("dana whitfield@example.test", "U+0020 SPACE is not possible before the @"),
    ("dänä@example.test", "U+00E4 LATIN SMALL LETTER A WITH DIAERESIS is not possible before the @"),
    ("dana\u200b@example.test", "U+200B ZERO WIDTH SPACE is not possible before the @"),
    ('"dana whitfield"@example.test', "U+0022 QUOTATION MARK is not possible before the @"),
    ("dana@example.test, ana@example.test", "U+0040 COMMERCIAL AT is not possible before the @"),
    ("dana@example.test\r\nRCPT TO:<ana@example.test>", "U+0040 COMMERCIAL AT is not possible before the @"),
    ("dana@exa_mple.test", "U+005F LOW LINE is not possible in its domain"),
    ("dana@example.test>", "U+003E GREATER-THAN SIGN is not possible in its domain"),
    ("dana@[192.0.2.1]", "U+005B LEFT SQUARE BRACKET is not possible in its domain"),
    ("dana@☃.example", "its domain is not possible (Codepoint U+2603 at position 1 of '☃' not allowed)"),
    ("dana@example..test", "a part of its domain is empty, too long, or begins or ends with a hyphen"),
    ("dana@example.test.", "a part of its domain is empty, too long, or begins or ends with a hyphen"),
    ("dana@-example.test", "a part of its domain is empty, too long, or begins or ends with a hyphen"),
    ("a" * 321 + "@example.test", "it has more than 320 characters"),
]


@pytest.mark.parametrize(("text", "problem"), INVALID)
def test_address_that_cannot_be_emailed_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(InvalidEmailAddress) as refused:
        to_ascii_address(text)
    assert str(refused.value) == problem
    assert not is_email_address(text)


@given(st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: text.replace("\ue000", "@")) | st.emails())
@example("dana@münchen.example")
def test_accepted_address_stays_one_recipient_in_smtp_and_in_headers(text: str) -> None:
    if not is_email_address(text):
        return
    address = to_ascii_address(text)
    assert re.fullmatch(r"[!-;=?-~]+@[A-Za-z0-9.-]+", address)
    assert to_ascii_address(address) == address == parse_mailbox(format_mailbox("To", "Dana, Escrow", address))[1]


def header_lines(name: str, value: str) -> list[bytes]:
    """Return the lines of the header as the mail server gets them."""
    message = Message()
    message[name] = value
    return message.as_bytes(policy=_CRLF_POLICY).partition(b"\r\n\r\n")[0].split(b"\r\n")


def require_well_formed(name: str, lines: list[bytes]) -> None:
    assert lines[0].removeprefix(f"{name}:".encode()).strip(), "the first line is not empty"
    assert all(line.strip() and len(line) <= 998 and line.isascii() for line in lines)
    for line in lines:
        words = ENCODED_WORD.findall(line)
        assert all(len(word) <= 75 for word in words)
        assert not words or len(line) <= 76


@pytest.mark.parametrize("header", ["To", "From"])
@pytest.mark.parametrize("address", ["dana@example.test", LONG_ADDRESS])
@given(name=NAMES)
@example(name="李" * 100)
@example(name="Álvarez de la Torre y García-Hernández, " * 3)
@example(name="x" * 100)
@example(name="Dana Whitfield " * 6)
@example(name='O\'Neil, "Dana" (escrow) <dana@example.test>')
@example(name="=?utf-8?q?ana=40example=2Etest?=")
def test_name_of_any_length_and_script_survives_the_header(header: str, address: str, name: str) -> None:
    lines = header_lines(header, format_mailbox(header, name, address))
    require_well_formed(header, lines)
    parsed_name, parsed_address = parseaddr(b"\r\n".join(lines).decode().partition(":")[2])
    assert (str(make_header(decode_header(parsed_name))), parsed_address) == (name, address)


@given(NAMES)
@example("Übersicht " * 20)
@example("x" * 200)
@example("=?utf-8?q?Pay_now?=")
def test_subject_of_any_length_and_script_survives_the_header(subject: str) -> None:
    if not subject:
        return
    lines = header_lines("Subject", format_text("Subject", subject))
    require_well_formed("Subject", lines)
    assert str(make_header(decode_header(b"\r\n".join(lines).decode().partition(": ")[2]))) == subject


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("escrow@example.test", ("", "escrow@example.test")),
        ("SeedTrust <escrow@münchen.example>", ("SeedTrust", "escrow@xn--mnchen-3ya.example")),
        ("=?utf-8?q?B=C3=BCro?= <escrow@example.test>", ("Büro", "escrow@example.test")),
    ],
)
def test_sender_is_a_name_and_an_address(text: str, mailbox: tuple[str, str]) -> None:
    assert parse_mailbox(text) == mailbox


def test_no_other_module_checks_or_parses_addresses() -> None:
    other_check = re.compile(r'["\']@["\'] (not )?in |parseaddr|formataddr|getaddresses|headerregistry|\]\+@\[')
    modules = {
        str(module.relative_to(PACKAGE)) for module in PACKAGE.rglob("*.py") if other_check.search(module.read_text())
    }
    assert modules == {"email_addresses.py"}
