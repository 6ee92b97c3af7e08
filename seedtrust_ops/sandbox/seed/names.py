"""Generates names, email addresses and bank accounts of fictional people.

The people's roles in the company are in `company`.
"""

from dataclasses import dataclass
from random import Random

EMAIL_DOMAIN = "seedtrust.example"
"""The domain of every address in a seeded company, by which the seeder recognizes its own users."""
MAX_NAME_LENGTH = 35

_FIRST_NAMES = (
    "Ada Amara Anika Beatriz Bruno Carmen Chidi Chloé Dana Darius Elena Emeka Farah Felix Grace Hana Hugo Imani Ines "
    "Isaac Jada Jonas José Kavya Keiko Lamar Leila Liam Lucía Mateo Maya Mei Nadia Noah Nora Omar Oscar Priya Quinn "
    "Rosa Ruth Samir Selma Sofía Tara Theo Uma Vera Wei Xenia Yara Yusuf Zoë"
)
_LAST_NAMES = (
    "Abara Alvarez Baker Becker Brandt Castillo Chen Cole Dubois Duran Eze Fischer Flores Garcia Greene Haddad Hassan "
    "Hughes Ibarra Ito Jansen Johnson Kaur Keller Khan Kim Larsen Lopez Mbeki Meyer Moreau Morris Nakamura Nguyen "
    "O'Brien Okafor Park Patel Petrov Quispe Ramirez Reyes Rossi Sato Schmidt Silva Singh Tanaka Torres Usman "
    "Vasquez Vogel Walker Wong Young Zamora"
)
_FIRST = _FIRST_NAMES.split()
_LAST = _LAST_NAMES.split()

# Routing numbers published by real banks, with valid check digits.
ROUTING_NUMBERS = (
    "044000024",
    "021000021",
    "026009593",
    "121000248",
    "042000314",
    "031176110",
    "124003116",
    "072000326",
)


@dataclass(frozen=True)
class PayeeAccount:
    """A payee's bank account."""

    routing_number: str
    account_number: str
    account_type: str


def full_name(rng: Random) -> str:
    """Return a name within the bank's limit of 35 characters."""
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"[:MAX_NAME_LENGTH]


def email(name: str, user_id: int, group: str) -> str:
    """Return a unique address that no real mail server delivers to."""
    readable = "".join(char for char in name.lower().replace(" ", ".") if char.isascii() and char != "'")
    return f"{readable}.{user_id}@{group}.{EMAIL_DOMAIN}"


def payee_account(rng: Random) -> PayeeAccount:
    """Return an account at a real bank; its number starts with 7, so that the sandbox bank never refuses it."""
    digits = rng.randint(9, 12)
    return PayeeAccount(
        routing_number=rng.choice(ROUTING_NUMBERS),
        account_number="7" + "".join(str(rng.randint(0, 9)) for _ in range(digits - 1)),
        account_type="savings" if rng.random() < 0.2 else "checking",
    )
