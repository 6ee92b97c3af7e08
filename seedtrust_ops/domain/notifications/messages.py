"""Makes a mail message of a letter: its headers, its plain text, its HTML and its file.

The Message-ID follows from the dedupe key and the sender's domain alone, so that a letter that is sent again
because an answer was lost can be recognized as the same one.
"""

import hashlib
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr

from seedtrust_ops.domain.notifications.claims import DueLetter
from seedtrust_ops.domain.notifications.rendering import Stationery, UnusableLetter, on_one_line

# Mail servers need not take 8-bit lines or long ones; quoted-printable goes through every one of them.
_POLICY = SMTP.clone(cte_type="7bit")


def message_id(dedupe_key: str, sender: str) -> str:
    """Return the Message-ID of the letter with this key, from this sender."""
    digest = hashlib.sha256(dedupe_key.encode()).hexdigest()[:40]
    return f"<{digest}@{parseaddr(sender)[1].rpartition('@')[2]}>"


def write_out(letter: DueLetter, stationery: Stationery, sender: str) -> EmailMessage:
    """Return the letter as a message from `sender`.

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
    message = EmailMessage(policy=_POLICY)
    message["From"] = sender
    message["To"] = _address(letter)
    message["Subject"] = written.subject
    message["Date"] = formatdate()
    message["Message-ID"] = message_id(letter.dedupe_key, sender)
    # Vacation notices answer people, and nobody reads what is answered to this one.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(written.text)
    message.add_alternative(written.html, subtype="html")
    if attachment is not None:
        main, _, sub = attachment.media_type.partition("/")
        message.add_attachment(
            attachment.content, maintype=main, subtype=sub, filename=on_one_line(attachment.filename)
        )
    return message


def _address(letter: DueLetter) -> Address:
    text = letter.recipient_email.strip()
    if not text:
        raise UnusableLetter("The recipient has no email address. Give the user one, then queue the letter again.")
    try:
        address = Address(on_one_line(letter.recipient_name), addr_spec=text)
    except (ValueError, IndexError, AttributeError) as error:
        raise UnusableLetter(f"The recipient's email address {text!r} can't be written to.") from error
    if not address.domain or not address.username or not text.isprintable() or " " in text:
        raise UnusableLetter(f"The recipient's email address {text!r} can't be written to.")
    return address
