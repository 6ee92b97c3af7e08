"""Email addresses: the one check of whether an address can be emailed, and how it is written in a header with its name.

Whatever accepts, stores or emails an address asks here, so that none passes one check and fails another. How emails are
sent is in `resources/smtp`.
"""

import re
from email.errors import MessageError
from email.header import Header, decode_header, make_header
from email.utils import formataddr, parseaddr

import idna

from seedtrust_ops.formatting import describe_character

MAX_ADDRESS_CHARS = 320
"""64 before the @ and 255 after it (RFC 5321, 4.5.3.1). What was cut in the database is longer, and never sent to."""
MAX_HEADER_LINE_CHARS = 76
"""The longest line of a header with encoded words (RFC 2047, 2), each of which may have 75 characters."""
# What every mail server carries unchanged: no quoting, no comments, only ASCII.
_NOT_LOCAL = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]")
_NOT_IN_DOMAIN = re.compile(r"[^A-Za-z0-9.-]")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class InvalidEmailAddress(ValueError):
    """Nothing can be emailed to the address; the message says why, as the end of a sentence."""


def to_ascii_address(text: str) -> str:
    """Return the address as mail servers get it: without outer spaces, and with its domain in ASCII (IDNA).

    Raises:
        InvalidEmailAddress: if it is not one address that every mail server accepts.
    """
    address = text.strip()
    if not address:
        raise InvalidEmailAddress("it is empty")
    if len(address) > MAX_ADDRESS_CHARS:
        raise InvalidEmailAddress(f"it has more than {MAX_ADDRESS_CHARS} characters")
    local, _, domain = address.rpartition("@")
    if not local or not domain:
        raise InvalidEmailAddress("it needs a name, an @ and a domain")
    if (character := _NOT_LOCAL.search(local)) is not None:
        raise InvalidEmailAddress(f"{describe_character(character[0])} is not possible before the @")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise InvalidEmailAddress(f"its domain is not possible ({error})") from None
    if (character := _NOT_IN_DOMAIN.search(domain)) is not None:
        raise InvalidEmailAddress(f"{describe_character(character[0])} is not possible in its domain")
    if not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise InvalidEmailAddress("a part of its domain is empty, too long, or begins or ends with a hyphen")
    return f"{local}@{domain}"


def is_email_address(text: str) -> bool:
    """Return whether the text is one address that can be emailed."""
    try:
        to_ascii_address(text)
    except InvalidEmailAddress:
        return False
    return True


def parse_mailbox(text: str) -> tuple[str, str]:
    """Return the name, which may be empty, and the address in ASCII of a text like `SeedTrust <escrow@example.com>`.

    Raises:
        InvalidEmailAddress: if its address can't be emailed, or its name is not readable.
    """
    name, address = parseaddr(text)
    try:
        name = str(make_header(decode_header(name)))
    except (MessageError, LookupError, UnicodeError):
        raise InvalidEmailAddress("its name is in encoded words that can't be read") from None
    return name, to_ascii_address(address)


def format_mailbox(header: str, name: str, address: str) -> str:
    """Return the value of a header (From, To) with this name, which may be empty, and this address in ASCII.

    A name that is long or not ASCII becomes encoded words (RFC 2047), and lines are folded as that standard asks.
    """
    if not name:
        return address
    if _can_be_plain(header, name) and len(f"{header}: {formataddr((name, address))}") <= MAX_HEADER_LINE_CHARS:
        return formataddr((name, address))
    encoded = _encode(header, name)
    last_line = encoded.rpartition("\n")[2] if "\n" in encoded else f"{header}: {encoded}"
    fold = " " if len(f"{last_line} <{address}>") <= MAX_HEADER_LINE_CHARS else "\n "
    return f"{encoded}{fold}<{address}>"


def format_text(header: str, text: str) -> str:
    """Return the value of a header (Subject) with this text; if long or not ASCII, it becomes encoded words."""
    return text if _can_be_plain(header, text) else _encode(header, text)


def _can_be_plain(header: str, text: str) -> bool:
    """Return whether the text fits on the header's line as it is, and is not taken for an encoded word."""
    return text.isascii() and "=?" not in text and len(f"{header}: {text}") <= MAX_HEADER_LINE_CHARS


def _encode(header: str, text: str) -> str:
    """Return the text in encoded words, of which the first is on the line of the header's name."""
    return Header(text, "utf-8", maxlinelen=MAX_HEADER_LINE_CHARS, header_name=header).encode()
