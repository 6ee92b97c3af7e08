"""A console that prints text from the database literally, without Rich markup or terminal control sequences.

Import it inside commands: Rich is slow to import.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from seedtrust_ops.formatting import strip_control_chars


class PlainConsole(Console):
    """A console that does not interpret square brackets as markup and removes control characters.

    Text in a `Text` object must have gone through `strip_control_chars` before.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text unchanged, except for control characters."""
        lines = "\n".join(strip_control_chars(line) for line in text.split("\n"))
        return super().render_str(lines, **(options | {"markup": False, "emoji": False, "highlight": False}))
