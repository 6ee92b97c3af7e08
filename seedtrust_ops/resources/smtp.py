"""Hands letters to a mail server over SMTP: many over one connection, which is opened when the first letter goes.

It turns every way in which that can end into one of the words of `post`; what is written in a letter, and whether
it is tried again, is not decided here.
"""

import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.policy import compat32
from email.utils import parseaddr

from seedtrust_ops.config.mail import MailSettings
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, MailServerUnavailable

ANSWER_SECONDS = 30.0
"""How long one answer of the mail server is waited for."""
_NOT_LET_IN = {530, 535, 538}
"""Replies about us and not about a letter: authentication is required, failed, or wants encryption first."""
_CLOSING = 421
_UNREADABLE = -1
# RFC 5321, section 4.5.2: a dot at the start of a line is doubled, for a dot alone ends the letter.
_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)
_LINES = compat32.clone(linesep="\r\n")


class SmtpPostOffice:
    """A mail server over at most one connection at a time; made by `open_post_office`."""

    def __init__(self, settings: MailSettings, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._connection: smtplib.SMTP | None = None
        self._sender_address = parseaddr(settings.email_from)[1]

    @property
    def sender(self) -> str:
        """Who letters are from, as their From line says it."""
        return self._settings.email_from

    def send(self, letter: Message) -> None:
        """Hand in one letter; it is the mail server's when this returns.

        A connection that turns out to be gone before the letter left is made anew, once.

        Raises:
            EmailRejected: this letter will never be taken.
            EmailDeferred: it was not taken now, or the answer to it was lost.
            MailServerUnavailable: no letter can be handed in now.
        """
        address = parseaddr(str(letter["To"]))[1]
        content = letter.as_bytes(policy=_LINES)
        held = self._connection is not None
        try:
            self._hand_in(address, content)
        except smtplib.SMTPServerDisconnected as error:
            self.close()
            if not held:
                raise MailServerUnavailable(self._sentence(_words(error))) from error
            try:
                self._hand_in(address, content)
            except smtplib.SMTPServerDisconnected as again:
                self.close()
                raise MailServerUnavailable(self._sentence(_words(again))) from again

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    def _hand_in(self, address: str, content: bytes) -> None:
        connection = self._connection = self._connection or self._connect()
        code, words = connection.mail(self._sender_address)
        if code != 250:
            self._check_open(code, words)
            connection.rset()
            raise MailServerUnavailable(
                self._sentence(f"it takes nothing from {self._sender_address}, {code} {_text(words)}")
            )
        code, words = connection.rcpt(address)
        if code not in (250, 251):
            self._refused(connection, code, words)
        code, words = self._deliver(connection, content)
        if not 200 <= code < 300:
            self._refused(connection, code, words)

    def _deliver(self, connection: smtplib.SMTP, content: bytes) -> tuple[int, bytes]:
        """Send the letter itself. From its first byte on, a lost answer means that nobody knows whose it is."""
        code, words = connection.docmd("DATA")
        if code != 354:
            return code, words
        try:
            connection.send(
                _LEADING_DOT.sub(b"..", content) + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")
            )
            code, words = connection.getreply()
        except smtplib.SMTPServerDisconnected as error:
            self.close()
            raise EmailDeferred(_lost(_words(error))) from error
        if code == _UNREADABLE:
            self.close()
            raise EmailDeferred(_lost(f"it said {_text(words)!r}"))
        return code, words

    def _refused(self, connection: smtplib.SMTP, code: int, words: bytes) -> None:
        self._check_open(code, words)
        connection.rset()
        reply = f"{code} {_text(words)}"
        if code in _NOT_LET_IN:
            raise MailServerUnavailable(self._sentence(f"it does not let us in, {reply}"))
        if 500 <= code < 600:
            raise EmailRejected(f"The mail server refused the letter: {reply}.")
        raise EmailDeferred(f"The mail server did not take the letter now: {reply}.")

    def _check_open(self, code: int, words: bytes) -> None:
        if code in (_CLOSING, _UNREADABLE):
            raise smtplib.SMTPServerDisconnected(f"{code} {_text(words)}")

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        connection: smtplib.SMTP | None = None
        try:
            connection = smtplib.SMTP(settings.host, settings.port, timeout=self._answer_seconds)
            if settings.starttls:
                connection.starttls(context=ssl.create_default_context())
            connection.ehlo_or_helo_if_needed()
            if settings.username is not None and settings.password is not None:
                connection.login(settings.username, settings.password.get_secret_value())
        except (smtplib.SMTPException, OSError) as error:
            if connection is not None:
                connection.close()
            raise MailServerUnavailable(self._sentence(_words(error))) from error
        return connection

    def _sentence(self, reason: str) -> str:
        return (
            f"The mail server {self._settings.host}:{self._settings.port} can't be used: {reason.rstrip('.')}. Check "
            "SMTP_HOST, SMTP_PORT, SMTP_USERNAME, SMTP_PASSWORD, SMTP_STARTTLS and EMAIL_FROM; the letters stay queued."
        )


@contextmanager
def open_post_office(settings: MailSettings, *, answer_seconds: float = ANSWER_SECONDS) -> Iterator[SmtpPostOffice]:
    """Yield the mail server; whatever connection it opened is closed at the end."""
    office = SmtpPostOffice(settings, answer_seconds)
    try:
        yield office
    finally:
        office.close()


def _lost(reason: str) -> str:
    return (
        f"The mail server gave no answer to the letter ({reason}), so it may have taken it; it is sent again under "
        "the same Message-ID."
    )


def _words(error: Exception) -> str:
    """Return what a server or the system said, on one line; never what we sent."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    return " ".join(str(error).split()) or type(error).__name__


def _text(words: bytes | str) -> str:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return " ".join(text.split())
