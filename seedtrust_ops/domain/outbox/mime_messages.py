"""Builds the MIME message of an email: headers, plain text, HTML and attachment.

The Message-ID depends only on the dedupe key and the sender's domain, so that an email that is sent again because
its response was lost can be recognized as a duplicate. Python's older email classes are used because the newer ones
parse every header that they are given, which takes ten times as long.
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

from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnsendableEmail
from seedtrust_ops.domain.outbox.email_claims import DueEmail
from seedtrust_ops.domain.outbox.email_store import Attachment
from seedtrust_ops.formatting import single_line

# Addresses that every mail server carries unchanged: no quoting, no comments, only ASCII.
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
MAX_NAME_CHARS = 100
# Quoted-printable, because mail servers need not accept 8-bit characters or long lines.
_UTF8 = Charset("utf-8")
_UTF8.body_encoding = QP


def message_id(dedupe_key: str, sender: str) -> str:
    """Return the Message-ID of the email with this key from this sender."""
    digest = hashlib.sha256(dedupe_key.encode()).hexdigest()[:40]
    return f"<{digest}@{parseaddr(sender)[1].rpartition('@')[2]}>"


def build_message(due_email: DueEmail, renderer: EmailRenderer, sender: str) -> tuple[Message, str]:
    """Return the email as a MIME message from `sender`, and its subject as the recipient reads it.

    Raises:
        UnsendableEmail: if it can't be rendered, or its recipient has no usable address.
    """
    attachment = due_email.attachment
    rendered = renderer.render(
        due_email.kind,
        due_email.variables,
        recipient_name=due_email.recipient_name,
        attachment_name=attachment.filename if attachment else None,
        subject=due_email.subject,
    )
    message: Message = MIMEMultipart(
        "alternative", _subparts=[_text_part(rendered.text, "plain"), _text_part(rendered.html, "html")]
    )
    if attachment is not None:
        message = MIMEMultipart("mixed", _subparts=[message, _attachment_part(attachment)])
    # No value of a header below can contain a line break, so no text can inject headers or recipients.
    message["From"] = formataddr(parseaddr(sender))
    message["To"] = formataddr(
        (single_line(due_email.recipient_name, MAX_NAME_CHARS), _address(due_email.recipient_email))
    )
    message["Subject"] = Header(
        rendered.subject, "us-ascii" if rendered.subject.isascii() else "utf-8", header_name="Subject"
    ).encode()
    message["Date"] = formatdate()
    message["Message-ID"] = message_id(due_email.dedupe_key, sender)
    # Suppresses vacation notices: nobody reads replies to these emails.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    return message, rendered.subject


def _text_part(text: str, subtype: str) -> MIMENonMultipart:
    part = MIMENonMultipart("text", subtype)
    part.set_payload(text, _UTF8)
    return part


def _attachment_part(attachment: Attachment) -> Message:
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
        raise UnsendableEmail(
            "The recipient has no email address. Add one to the user, then run `seedtrust-ops notifications retry`."
        )
    if not _ADDRESS.fullmatch(address):
        raise UnsendableEmail(
            f"The recipient's email address {address!r} is not valid. Correct it, then run "
            "`seedtrust-ops notifications retry`."
        )
    return address
