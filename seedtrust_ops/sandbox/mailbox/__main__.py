"""`python -m seedtrust_ops.sandbox.mailbox`: runs one mail server until it is told to stop.

The url that it prints is the control's; `/healthz` there says on which port it speaks SMTP.
"""

import argparse
from pathlib import Path

from seedtrust_ops.sandbox.asgi_server import add_serving_arguments, listen, serve
from seedtrust_ops.sandbox.mailbox.server import Mailbox, control_app
from seedtrust_ops.sandbox.mailbox.store import MailboxStore


def main() -> None:
    """Listen, say where, serve."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.mailbox", description=__doc__)
    add_serving_arguments(parser)
    parser.add_argument("--smtp-port", type=int, default=0, help="on loopback; 0 takes a free one")
    parser.add_argument("--file", type=Path, required=True, help="where letters are kept, made where it is missing")
    parser.add_argument("--username", help="take letters only from who logs in by this name")
    parser.add_argument("--password", help="and with this password")
    arguments = parser.parse_args()
    mailbox = Mailbox(MailboxStore(arguments.file), arguments.username, arguments.password)
    listener = listen(arguments.smtp_port)
    mailbox.serve_smtp(listener)
    serve(control_app(mailbox, listener.getsockname()[1]), arguments)


if __name__ == "__main__":
    main()
