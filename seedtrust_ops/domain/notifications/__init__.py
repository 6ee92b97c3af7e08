"""The content of emails: their kinds, their templates and the renderer. Sending them is in `domain/outbox`."""
