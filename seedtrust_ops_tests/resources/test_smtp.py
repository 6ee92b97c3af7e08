"""The SMTP client: login, encryption, and a clear error for every way a mail server can fail."""

import hmac
import os
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from seedtrust_ops.config import external_services
from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.orchestration.dagster_resources import MailResource
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, MailServerUnavailable
from seedtrust_ops.resources.smtp import open_smtp_transport
from seedtrust_ops.sandbox.mailbox.process import SENDER, MailboxProcess, start_mailbox
from seedtrust_ops_tests.support.environment import SetVariables


def settings_for(port: int, **changes: Any) -> MailSettings:
    values = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": port, "SMTP_STARTTLS": False, "EMAIL_FROM": SENDER}
    return MailSettings(**(values | changes))


def build_email(body: str = "Hello.\n") -> Message:
    message = Message()
    message["From"] = SENDER
    message["To"] = "reader@example.test"
    message["Subject"] = "Hello"
    message.set_payload(body)
    return message


def send(settings: MailSettings, *messages: Message, timeout_seconds: float = 60) -> None:
    with open_smtp_transport(settings, timeout_seconds=timeout_seconds) as transport:
        for message in messages or (build_email(),):
            transport.send(message)


@contextmanager
def scripted_server(*replies: bytes, received: list[bytes] | None = None) -> Iterator[int]:
    """Run a server that sends one reply after the other, whatever it receives, and then disconnects."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for reply in replies:
                connection.sendall(reply)
                line = connection.recv(65_536)
                if not line:
                    return
                if received is not None:
                    received.append(line)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def test_email_arrives_unchanged_including_leading_dots(mailbox: MailboxProcess) -> None:
    body = ".\n..\n.hidden\nFrom nobody\nlast"
    send(settings_for(mailbox.smtp_port), build_email(body))
    (received,) = mailbox.control.emails("reader@example.test")
    assert received.message.get_content().rstrip().splitlines() == body.splitlines()
    assert received.sender == "escrow@seedtrust.example"


@pytest.mark.usefixtures("child_processes")
def test_username_and_password_are_used_if_set(tmp_path: Path) -> None:
    with start_mailbox(tmp_path / "m.sqlite", username="ops", password="p4ssw0rd") as server:
        send(MailSettings(**server.environment))
        assert server.control.totals()["emails"] == 1
        with pytest.raises(MailServerUnavailable, match="535") as raised:
            send(settings_for(server.smtp_port, SMTP_USERNAME="ops", SMTP_PASSWORD=SecretStr("hunter2")))
        assert "hunter2" not in str(raised.value)
        with pytest.raises(MailServerUnavailable, match="530"):
            send(settings_for(server.smtp_port))


PASSWORD = "Schlüssel-пароль-鍵"


@pytest.mark.usefixtures("child_processes")
def test_login_that_is_not_ascii_is_sent_in_utf8(tmp_path: Path) -> None:
    with start_mailbox(tmp_path / "m.sqlite", username="büro", password=PASSWORD) as server:
        send(MailSettings(**server.environment))
        assert server.control.totals()["emails"] == 1
        with pytest.raises(MailServerUnavailable, match="535") as raised:
            send(settings_for(server.smtp_port, SMTP_USERNAME="büro", SMTP_PASSWORD=SecretStr(f"{PASSWORD}x")))
        assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "PLAIN", "LOGIN"])
@pytest.mark.parametrize(
    "password", ["p4ssw0rd", PASSWORD, os.fsdecode(b"latin-1 \xfc")], ids=["ascii", "utf-8", "not utf-8"]
)
def test_each_login_mechanism_takes_any_password(mechanism: str, password: str) -> None:
    received: list[bytes] = []
    steps = {
        "CRAM-MD5": [b"334 " + b64encode(b"<1@server>")],
        "PLAIN": [b"334 "],
        "LOGIN": [b"334 " + b64encode(b"Username:"), b"334 " + b64encode(b"Password:")],
    }[mechanism]
    replies = [
        *(b"220 hello", f"250-hello\r\n250 AUTH GSSAPI {mechanism}".encode(), *steps, b"235 welcome"),
        *(b"250 ok", b"250 ok", b"354 go on", b"250 accepted", b"221 bye"),
    ]
    with scripted_server(*(reply + b"\r\n" for reply in replies), received=received) as port:
        send(settings_for(port, SMTP_USERNAME="büro", SMTP_PASSWORD=SecretStr(password)))
    name, secret = "büro".encode(), os.fsencode(password)
    assert received[1] == f"AUTH {mechanism}\r\n".encode()
    assert [b64decode(line) for line in received[2 : 2 + len(steps)]] == {
        "CRAM-MD5": [name + b" " + hmac.new(secret, b"<1@server>", "md5").hexdigest().encode()],
        "PLAIN": [b"\0" + name + b"\0" + secret],
        "LOGIN": [name, secret],
    }[mechanism]


def test_rejected_login_is_reported_if_the_server_hangs_up_after_it() -> None:
    replies = (b"220 hello\r\n", b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n", b"535 5.7.8 wrong password\r\n")
    settings = {"SMTP_USERNAME": "ops", "SMTP_PASSWORD": SecretStr("hunter2")}
    with scripted_server(*replies) as port, pytest.raises(MailServerUnavailable, match=r"535 5[.]7[.]8 wrong password"):
        send(settings_for(port, **settings))


def test_server_that_offers_no_login_is_reported() -> None:
    settings = {"SMTP_USERNAME": "ops", "SMTP_PASSWORD": SecretStr("hunter2")}
    with (
        scripted_server(b"220 hello\r\n", b"250 hello\r\n") as port,
        pytest.raises(MailServerUnavailable, match="offers no login by CRAM-MD5, PLAIN, LOGIN"),
    ):
        send(settings_for(port, **settings))


def test_server_without_encryption_gets_neither_email_nor_password(mailbox: MailboxProcess) -> None:
    with pytest.raises(MailServerUnavailable, match="STARTTLS"):
        send(settings_for(mailbox.smtp_port, SMTP_STARTTLS=True))
    assert mailbox.control.totals()["emails"] == 0


@contextmanager
def tls_server(certificate: Path, **options: Any) -> Iterator[tuple[int, "_CountingHandler"]]:
    """Run a server with this certificate; `options` say whether TLS starts at once or after STARTTLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    handler = _CountingHandler()
    controller = Controller(
        handler,
        hostname="127.0.0.1",
        port=_free_port(),
        ready_timeout=60,
        **{name: context if value is ... else value for name, value in options.items()},
    )
    controller.start()
    try:
        yield controller.port, handler
    finally:
        controller.stop()


def test_encrypted_connection_requires_a_trusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = _certificate(tmp_path)
    with tls_server(certificate, tls_context=..., require_starttls=True) as (port, handler):
        settings = settings_for(port, SMTP_STARTTLS=True)
        with pytest.raises(MailServerUnavailable, match="certificate verify failed"):
            send(settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(settings)
    assert handler.count == 1


@pytest.mark.parametrize("starttls", [True, False])
def test_port_465_is_encrypted_from_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starttls: bool
) -> None:
    certificate = _certificate(tmp_path)
    with tls_server(certificate, ssl_context=...) as (port, handler):
        settings = settings_for(port, SMTP_STARTTLS=starttls)
        with pytest.raises(MailServerUnavailable, match=r"sent no greeting.*implicit TLS\), use SMTP_PORT=465"):
            send(settings_for(port), timeout_seconds=1)
        monkeypatch.setattr(external_services, "IMPLICIT_TLS_PORT", port)
        with pytest.raises(MailServerUnavailable, match="certificate verify failed"):
            send(settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(settings, build_email(), build_email())
    assert handler.count == 2


def test_port_465_without_tls_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(b"220 hello\r\n") as port:
        monkeypatch.setattr(external_services, "IMPLICIT_TLS_PORT", port)
        with pytest.raises(MailServerUnavailable, match=r"no TLS connection could be made .*\(implicit TLS\)"):
            send(settings_for(port))


class _CountingHandler(MessageHandler):
    count = 0

    def handle_message(self, _message: Any) -> None:
        self.count += 1


def test_unknown_host_and_closed_port_are_reported(closed_port: int) -> None:
    with pytest.raises(MailServerUnavailable, match=rf"127.0.0.1:{closed_port} can't be used: .*refused"):
        send(settings_for(closed_port))
    with pytest.raises(MailServerUnavailable, match=r"nowhere.invalid:25 can't be used"):
        send(settings_for(25, SMTP_HOST="nowhere.invalid"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens during the test."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ((b"garbage\r\n",), "can't be used"),
        ((b"554 no\r\n",), "554 no"),
        (
            (b"220 hello\r\n", b"250 hello\r\n", b"550 5.7.1 who are you\r\n", b"250\r\n"),
            "sender escrow@seedtrust.example rejected",
        ),
        ((b"220 hello\r\n", b"250 hello\r\n", b"421 4.3.2 going down\r\n"), "421 4.3.2 going down"),
        (
            (b"220 hello\r\n", b"250 hello\r\n", b"250 ok\r\n", b"530 5.7.0 log in\r\n", b"250\r\n"),
            "login required or rejected",
        ),
    ],
    ids=["garbage", "no service", "sender rejected", "going down", "login required"],
)
def test_server_that_accepts_nothing_is_reported_with_its_reply(replies: tuple[bytes, ...], error: str) -> None:
    with scripted_server(*replies) as port, pytest.raises(MailServerUnavailable, match=error):
        send(settings_for(port))


def test_silent_server_is_reported() -> None:
    with scripted_server(b"") as port, pytest.raises(MailServerUnavailable, match="can't be used"):
        send(settings_for(port), timeout_seconds=0.5)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"550 5.1.1 unknown\r\n", EmailRejected),
        (b"552 too large\r\n", EmailRejected),
        (b"450 later\r\n", EmailDeferred),
        (b"452 full\r\n", EmailDeferred),
    ],
)
@pytest.mark.parametrize("step", ["recipient", "data", "content"])
def test_rejection_or_deferral_applies_to_that_email_only(step: str, reply: bytes, expected: type[Exception]) -> None:
    before = {"recipient": [], "data": [b"250 ok\r\n"], "content": [b"250 ok\r\n", b"354 go on\r\n"]}[step]
    replies = [b"220 hello\r\n", b"250 hello\r\n", b"250 ok\r\n", *before, reply, b"250 reset\r\n", b"221 bye\r\n"]
    with scripted_server(*replies) as port, pytest.raises(expected, match=reply.decode().strip()):
        send(settings_for(port))


@pytest.mark.parametrize(
    ("reply", "expected"), [(b"550 5.1.1 unknown\r\n", EmailRejected), (b"450 later\r\n", EmailDeferred)]
)
@pytest.mark.parametrize("step", ["recipient", "data", "content"])
def test_refusal_is_kept_if_the_server_hangs_up_after_it(step: str, reply: bytes, expected: type[Exception]) -> None:
    before = {"recipient": [], "data": [b"250 ok\r\n"], "content": [b"250 ok\r\n", b"354 go on\r\n"]}[step]
    replies = [b"220 hello\r\n", b"250 hello\r\n", b"250 ok\r\n", *before, reply]
    with scripted_server(*replies) as port, pytest.raises(expected, match=reply.decode().strip()):
        send(settings_for(port))


def test_rejected_sender_is_reported_if_the_server_hangs_up_after_it() -> None:
    replies = (b"220 hello\r\n", b"250 hello\r\n", b"550 5.7.1 who are you\r\n")
    with (
        scripted_server(*replies) as port,
        pytest.raises(MailServerUnavailable, match=r"sender .* rejected \(550 5.7.1"),
    ):
        send(settings_for(port))


@pytest.mark.parametrize(
    ("reply", "is_of_relay"),
    [
        (b"554 5.7.1 <dana@example.test>: Relay access denied\r\n", True),
        (b"554 relay access denied\r\n", True),
        (b"550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain\r\n", True),
        (b"550 Relaying denied\r\n", True),
        (b"554 no\r\n", True),
        (b"550 5.1.1 unknown\r\n", False),
        (b"550 no such user here\r\n", False),
        (b"554 5.6.0 content rejected\r\n", False),
    ],
)
def test_refusal_that_speaks_of_the_relay_is_told_apart(reply: bytes, is_of_relay: bool) -> None:
    replies = (b"220 hello\r\n", b"250 hello\r\n", b"250 ok\r\n", reply, b"250 reset\r\n", b"221 bye\r\n")
    with scripted_server(*replies) as port, pytest.raises(EmailRejected) as refused:
        send(settings_for(port))
    assert refused.value.is_of_relay is is_of_relay


def test_unreadable_response_to_an_email_counts_as_lost() -> None:
    replies = (b"220 hello\r\n", b"250 hello\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n", b"hm\r\n")
    with scripted_server(*replies) as port, pytest.raises(EmailDeferred, match="it may have accepted it"):
        send(settings_for(port))


def test_server_that_disconnects_twice_is_unavailable(mailbox: MailboxProcess) -> None:
    mailbox.control.inject_fault("drop_at_mail", skip=1, times=2)
    with pytest.raises(MailServerUnavailable):
        send(settings_for(mailbox.smtp_port), build_email(), build_email())
    assert mailbox.control.totals()["emails"] == 1


@pytest.mark.parametrize("missing", ["SMTP_HOST", "EMAIL_FROM"])
def test_missing_variable_is_named(set_variables: SetVariables, mail_environment: dict[str, str], missing: str) -> None:
    set_variables(**{missing: None})
    with pytest.raises(ConfigurationError, match=f"{missing} is not set. It is "), MailResource().open():
        pass


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMAIL_FROM", "nobody"),
        ("EMAIL_FROM", "a@b.test\r\nBcc: c@d.test"),
        ("SMTP_HOST", "smtp..example.test"),
        ("SMTP_PORT", "0"),
        ("SMTP_STARTTLS", "perhaps"),
        ("SMTP_PASSWORD", "without a name"),
    ],
)
def test_invalid_variable_is_named_without_its_value(variable: str, value: str) -> None:
    environment = {"SMTP_HOST": "smtp.example.test", "EMAIL_FROM": SENDER, variable: value}
    with pytest.raises(ConfigurationError, match=f"{variable} is invalid: ") as raised:
        MailSettings.read(environment)
    assert value not in str(raised.value)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _certificate(folder: Path) -> Path:
    """Create a self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
