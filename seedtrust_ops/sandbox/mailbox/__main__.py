"""`python -m seedtrust_ops.sandbox.mailbox`: runs one mail server until it is stopped.

It prints the URL of its control endpoints; `/healthz` there returns the SMTP port.
"""

import argparse
from pathlib import Path

from seedtrust_ops.sandbox.asgi_server import add_server_arguments, listen, serve
from seedtrust_ops.sandbox.mailbox.server import Mailbox, MailboxStore, control_app


def main() -> None:
    """Run the SMTP server and its control endpoints."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.mailbox", description=__doc__)
    add_server_arguments(parser)
    parser.add_argument("--smtp-port", type=int, default=0, help="SMTP port on loopback; 0 picks a free one")
    parser.add_argument("--file", type=Path, required=True, help="where emails are stored; created if missing")
    parser.add_argument("--username", help="require this SMTP login")
    parser.add_argument("--password", help="the password of that login")
    arguments = parser.parse_args()
    mailbox = Mailbox(MailboxStore(arguments.file), arguments.username, arguments.password)
    listener = listen(arguments.smtp_port)
    mailbox.serve_smtp(listener)
    serve(control_app(mailbox, listener.getsockname()[1]), arguments)


if __name__ == "__main__":
    main()
