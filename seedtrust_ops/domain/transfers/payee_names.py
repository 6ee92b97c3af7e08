"""Payee names: what is sent to the bank of a name that a person typed or pasted, and what is wrong with it.

Only spaces and invisible marks are changed, never a letter. Where the names come from is in `account_numbers` and
`preflight`; see docs/decisions/preflight.md.
"""

from seedtrust_ops.formatting import MAX_TEXT_CHARS, describe_character

MAX_NAME_LENGTH = 35
"""The longest payee name that the bank accepts, in characters (bank_api.yaml, counterparty.name)."""

# They have no width and stand for no letter: programs insert them where a line may break or a word ends, and copying
# takes them along. Marks that reverse the direction of the letters after them are not among them: with those, people
# saw another name than the one that would be sent.
_INVISIBLE_MARKS = dict.fromkeys(
    (
        0x00AD,  # SOFT HYPHEN
        0x200B,  # ZERO WIDTH SPACE
        0x200C,  # ZERO WIDTH NON-JOINER
        0x200D,  # ZERO WIDTH JOINER
        0x200E,  # LEFT-TO-RIGHT MARK
        0x200F,  # RIGHT-TO-LEFT MARK
        0x2060,  # WORD JOINER
        0xFEFF,  # ZERO WIDTH NO-BREAK SPACE, the byte order mark
    )
)


def normalize_payee_name(name: str) -> str:
    """Return the name without invisible marks and outer spaces, and with one space for any others in a row."""
    return " ".join(name.translate(_INVISIBLE_MARKS).split())


def find_payee_name_problem(name: str) -> str | None:
    """Return why the bank would not accept the name once it is normalized, or None if it would."""
    limits = f"the payee's name must be 1 to {MAX_NAME_LENGTH} printable characters"
    if len(name) >= MAX_TEXT_CHARS:
        # It was cut when it was loaded, so nobody knows what is left of it without its spaces.
        return f"{limits}, and with its spaces it has {MAX_TEXT_CHARS} or more"
    name = normalize_payee_name(name)
    if not name:
        return f"{limits}, and it is empty"
    unprintable = next((number for number, character in enumerate(name) if not character.isprintable()), None)
    if unprintable is not None:
        return f"{limits}, and character {unprintable + 1} is {describe_character(name[unprintable])}"
    if len(name) > MAX_NAME_LENGTH:
        return f"{limits}, and it has {len(name)}"
    return None
