"""Makes a mail message of a letter: its headers, its plain text, its HTML and its file.

The Message-ID follows from the dedupe key and the sender's domain alone, so that a letter that is sent again
because an answer was lost can be recognized as the same one. It uses Python's older classes for mail: the newer
ones parse every header that they are given, and take ten times as long.
"""

import hashlib
import re
from email.charset import QP, Charset
from email.header import Header
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.utils import formataddr, formatdate, parseaddr

from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnusableLetter
from seedtrust_ops.domain.outbox.email_claims import DueLetter
from seedtrust_ops.domain.outbox.email_store import Attachment
from seedtrust_ops.formatting import single_line

# What mail servers everywhere carry as it stands: no quoting, no comments, nothing beyond ASCII.
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
LONGEST_NAME = 100
# Quoted-printable: mail servers need take neither 8-bit characters nor long lines.
_UTF8 = Charset("utf-8")
_UTF8.body_encoding = QP


def message_id(dedupe_key: str, sender: str) -> str:
    """Return the Message-ID of the letter with this key, from this sender."""
    digest = hashlib.sha256(dedupe_key.encode()).hexdigest()[:40]
    return f"<{digest}@{parseaddr(sender)[1].rpartition('@')[2]}>"


def write_out(letter: DueLetter, stationery: EmailRenderer, sender: str) -> tuple[Message, str]:
    """Return the letter as a message from `sender`, and its subject as people read it.

    Raises:
        UnusableLetter: when it can't be written, or its recipient has no address that can be written to.
    """
    attachment = letter.attachment
    written = stationery.write(
        letter.kind,
        letter.variables,
        recipient_name=letter.recipient_name,
        attachment_name=attachment.filename if attachment else None,
        subject=letter.subject,
    )
    message: Message = MIMEMultipart(
        "alternative", _subparts=[_part(written.text, "plain"), _part(written.html, "html")]
    )
    if attachment is not None:
        message = MIMEMultipart("mixed", _subparts=[message, _attached(attachment)])
    # Nothing that goes into a header below can hold a line break: no letter adds headers or recipients of its own.
    message["From"] = formataddr(parseaddr(sender))
    message["To"] = formataddr((single_line(letter.recipient_name, LONGEST_NAME), _address(letter.recipient_email)))
    message["Subject"] = Header(
        written.subject, "us-ascii" if written.subject.isascii() else "utf-8", header_name="Subject"
    ).encode()
    message["Date"] = formatdate()
    message["Message-ID"] = message_id(letter.dedupe_key, sender)
    # Vacation notices answer people, and nobody reads what is answered to this one.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    return message, written.subject


def _part(text: str, subtype: str) -> MIMENonMultipart:
    part = MIMENonMultipart("text", subtype)
    part.set_payload(text, _UTF8)
    return part


def _attached(attachment: Attachment) -> Message:
    main, _, sub = attachment.media_type.partition("/")
    if main != "application":
        main, sub = "application", "octet-stream"
    part = MIMEApplication(attachment.content, sub)
    name = single_line(attachment.filename)
    part.add_header("Content-Disposition", "attachment", filename=name if name.isascii() else ("utf-8", "", name))
    return part


def _address(text: str) -> str:
    address = text.strip()
    if not address:
        raise UnusableLetter("The recipient has no email address. Give the user one, then queue the letter again.")
    if not _ADDRESS.fullmatch(address):
        raise UnusableLetter(
            f"The recipient's email address {address!r} can't be written to. Correct it, then queue the letter again."
        )
    return address
