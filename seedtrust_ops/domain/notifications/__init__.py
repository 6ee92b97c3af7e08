"""What the emails are: their kinds, their templates and how they are rendered. Sending them is `domain/outbox`."""
