"""Sends emails to a mail server over SMTP: many over one connection, which is opened for the first email.

Every failure becomes one of the errors in `ports/email`. The content of emails and their retries are in
`domain/outbox`.
"""

import hmac
import re
import smtplib
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from email.policy import compat32

from seedtrust_ops.config.external_services import IMPLICIT_TLS_PORT, MailSettings
from seedtrust_ops.email_addresses import InvalidEmailAddress, parse_mailbox
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, MailServerUnavailable

SMTP_TIMEOUT_SECONDS = 30.0
"""The timeout for one response of the mail server."""
_LOGIN_REQUIRED_CODES = {530, 535, 538}
"""Replies about our login rather than the email: authentication is required, failed, or needs encryption first."""
# What relays say if they accept nothing from us: RFC 3463 has 5.7.x for security and policy; many only have it as text.
_RELAY_REPLY = re.compile(r"^5\d\d 5\.7\.|\brelay|access denied|not permitted|^554 (?!5\.)", re.IGNORECASE)
_LOGGED_IN_CODE = 235
_CONTINUE_CODE = 334
_SERVICE_CLOSING_CODE = 421
_UNREADABLE_CODE = -1
# RFC 5321, section 4.5.2: a dot at the start of a line is doubled, because a line with only a dot ends the email.
_LEADING_DOT = re.compile(rb"^\.", re.MULTILINE)
# Headers are folded when they are built: what is folded here can begin with an empty line.
_CRLF_POLICY = compat32.clone(linesep="\r\n", max_line_length=None)


class SmtpTransport:
    """A mail server, over at most one connection at a time; created by `open_smtp_transport`."""

    def __init__(self, settings: MailSettings, timeout_seconds: float = SMTP_TIMEOUT_SECONDS) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._connection: smtplib.SMTP | None = None
        self._sender_address = parse_mailbox(settings.email_from)[1]

    @property
    def sender(self) -> str:
        """The value of the From header."""
        return self._settings.email_from

    def send(self, message: Message) -> None:
        """Send one email; it is the mail server's responsibility once this returns.

        If the connection turns out to be closed before the email was sent, it is reopened once.

        Raises:
            EmailRejected: this email was refused; so may be all others.
            EmailDeferred: it was not accepted now, or the response was lost.
            MailServerUnavailable: no email can be sent now.
        """
        try:
            address = parse_mailbox(str(message["To"]))[1]
        except InvalidEmailAddress as error:
            raise EmailRejected(f"Nothing can be sent to the recipient's email address: {error}.") from None
        content = message.as_bytes(policy=_CRLF_POLICY)
        was_connected = self._connection is not None
        try:
            self._transmit(address, content)
        except smtplib.SMTPServerDisconnected as error:
            self.close()
            if not was_connected:
                raise self._unavailable(_error_text(error)) from error
            try:
                self._transmit(address, content)
            except smtplib.SMTPServerDisconnected as second_error:
                self.close()
                raise self._unavailable(_error_text(second_error)) from second_error

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    def _transmit(self, address: str, content: bytes) -> None:
        connection = self._connection = self._connection or self._connect()
        code, reply = connection.mail(self._sender_address)
        if code != 250:
            self._raise_if_closed(code, reply)
            self._reset(connection)
            raise self._unavailable(f"sender {self._sender_address} rejected ({code} {_decode(reply)})")
        code, reply = connection.rcpt(address)
        if code not in (250, 251):
            self._raise_rejection(connection, code, reply)
        code, reply = self._send_content(connection, content)
        if not 200 <= code < 300:
            self._raise_rejection(connection, code, reply)

    def _send_content(self, connection: smtplib.SMTP, content: bytes) -> tuple[int, bytes]:
        """Send the email itself. Once its first byte is sent, a lost response means that the outcome is unknown."""
        code, reply = connection.docmd("DATA")
        if code != 354:
            return code, reply
        try:
            connection.send(
                _LEADING_DOT.sub(b"..", content) + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")
            )
            code, reply = connection.getreply()
        except smtplib.SMTPServerDisconnected as error:
            self.close()
            raise EmailDeferred(_response_lost(_error_text(error))) from error
        if code == _UNREADABLE_CODE:
            self.close()
            raise EmailDeferred(_response_lost(f"unreadable reply {_decode(reply)!r}"))
        return code, reply

    def _raise_rejection(self, connection: smtplib.SMTP, code: int, reply: bytes) -> None:
        self._raise_if_closed(code, reply)
        self._reset(connection)
        text = f"{code} {_decode(reply)}"
        if code in _LOGIN_REQUIRED_CODES:
            raise self._unavailable(f"login required or rejected ({text})")
        if 500 <= code < 600:
            raise EmailRejected(
                f"The mail server rejected the email: {text}.", is_of_relay=_RELAY_REPLY.search(text) is not None
            )
        raise EmailDeferred(f"The mail server deferred the email: {text}.")

    def _reset(self, connection: smtplib.SMTP) -> None:
        """Make the connection ready for the next email, or drop it if the server hung up after its refusal."""
        try:
            connection.rset()
        except smtplib.SMTPServerDisconnected:
            self.close()

    def _raise_if_closed(self, code: int, reply: bytes) -> None:
        if code in (_SERVICE_CLOSING_CODE, _UNREADABLE_CODE):
            raise smtplib.SMTPServerDisconnected(f"{code} {_decode(reply)}")

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        connection: smtplib.SMTP | None = None
        try:
            connection = self._open()
            if settings.starttls and not settings.has_implicit_tls:
                connection.starttls(context=ssl.create_default_context())
            connection.ehlo_or_helo_if_needed()
            if settings.username is not None and settings.password is not None:
                _log_in(connection, settings.username, settings.password.get_secret_value())
        # ValueError: a reply or the name of this machine has characters that the protocol does not allow.
        except (smtplib.SMTPException, OSError, ValueError) as error:
            if connection is not None:
                connection.close()
            raise self._unavailable(_error_text(error)) from error
        return connection

    def _open(self) -> smtplib.SMTP:
        """Connect and read the greeting; on IMPLICIT_TLS_PORT, over TLS from the first byte."""
        settings = self._settings
        if settings.has_implicit_tls:
            try:
                return smtplib.SMTP_SSL(
                    settings.host, settings.port, timeout=self._timeout_seconds, context=ssl.create_default_context()
                )
            except ssl.SSLCertVerificationError:
                raise
            except ssl.SSLError as error:
                raise self._unavailable(
                    f"no TLS connection could be made ({_error_text(error)}), and on port {IMPLICIT_TLS_PORT} TLS "
                    "starts at once (implicit TLS)"
                ) from error
        try:
            return smtplib.SMTP(settings.host, settings.port, timeout=self._timeout_seconds)
        except smtplib.SMTPServerDisconnected as error:
            raise self._unavailable(
                f"it sent no greeting ({_error_text(error)}). If TLS starts at once on its port {settings.port} "
                f"(implicit TLS), use SMTP_PORT={IMPLICIT_TLS_PORT}, or its port for STARTTLS, which is usually 587"
            ) from error

    def _unavailable(self, reason: str) -> MailServerUnavailable:
        return MailServerUnavailable(
            f"The mail server {self._settings.host}:{self._settings.port} can't be used: {reason.rstrip('.')}. Check "
            "SMTP_HOST, SMTP_PORT, SMTP_USERNAME, SMTP_PASSWORD, SMTP_STARTTLS and EMAIL_FROM. Emails stay queued."
        )


@contextmanager
def open_smtp_transport(
    settings: MailSettings, *, timeout_seconds: float = SMTP_TIMEOUT_SECONDS
) -> Iterator[SmtpTransport]:
    """Yield a transport for the mail server; its connection, if it opened one, is closed at the end."""
    transport = SmtpTransport(settings, timeout_seconds)
    try:
        yield transport
    finally:
        transport.close()


def _log_in(connection: smtplib.SMTP, username: str, password: str) -> None:
    """Log in by the first mechanism that the server offers and accepts.

    Name and password are sent in UTF-8 (RFC 4616, 2). smtplib's own login allows only ASCII.
    """
    # Bytes that are not UTF-8 come from the environment as surrogates, and are sent as they are.
    name, secret = username.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    mechanisms: Mapping[str, Sequence[Callable[[bytes], bytes]]] = {
        "CRAM-MD5": [
            lambda challenge: name + b" " + hmac.new(secret, b64decode(challenge), "md5").hexdigest().encode()
        ],
        "PLAIN": [lambda _: b"\0" + name + b"\0" + secret],
        "LOGIN": [lambda _: name, lambda _: secret],
    }
    offered = connection.esmtp_features.get("auth", "").upper().split()
    error: smtplib.SMTPException = smtplib.SMTPNotSupportedError(
        f"it offers no login by {', '.join(mechanisms)}, and SMTP_USERNAME is set"
    )
    for mechanism in [one for one in mechanisms if one in offered]:
        try:
            code, reply = connection.docmd("AUTH", mechanism)
            for respond in mechanisms[mechanism]:
                if code == _CONTINUE_CODE:
                    code, reply = connection.docmd(b64encode(respond(reply)).decode())
        except smtplib.SMTPServerDisconnected as lost:
            # A server may hang up after it has rejected a login, and the rejection says more.
            raise (error if isinstance(error, smtplib.SMTPAuthenticationError) else lost) from None
        if code == _LOGGED_IN_CODE:
            return
        error = smtplib.SMTPAuthenticationError(code, reply)
    raise error


def _response_lost(reason: str) -> str:
    return (
        f"The mail server's response to the email was lost ({reason}), so it may have accepted it. The email is sent "
        "again under the same Message-ID."
    )


def _error_text(error: Exception) -> str:
    """Return the server's or the operating system's text on one line; it never contains what we sent."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_decode(error.smtp_error)}"
    return " ".join(str(error).split()) or type(error).__name__


def _decode(reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return " ".join(text.split())
