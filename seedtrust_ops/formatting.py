"""Formats money and counts, and cleans text that users typed so that it is safe in a terminal, a log or an email.

Escaping for a certain format, such as HTML or a spreadsheet cell, is done where that format is written.
"""


def format_dollars(cents: int) -> str:
    """Return cents formatted as US dollars: -123456 is -$1,234.56."""
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"


def pluralize(count: int, singular: str, plural: str | None = None) -> str:
    """Return the count with its noun: "1 batch" or "2 batches"; the default plural adds an s."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def strip_control_chars(text: str) -> str:
    """Return the text with a space in place of each control character.

    These are line breaks, terminal escape sequences and the marks that change the text direction.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def single_line(text: str, max_length: int | None = None) -> str:
    """Return the text on one line, without control characters, cut with an ellipsis if longer than `max_length`."""
    line = " ".join(strip_control_chars(text).split())
    return line if max_length is None or len(line) <= max_length else f"{line[: max_length - 1]}…"
