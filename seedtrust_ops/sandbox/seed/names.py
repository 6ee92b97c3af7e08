"""The made-up people's names, e-mail addresses and bank accounts, drawn from a seeded source.

Who plays which part in the company is in `company`.
"""

from dataclasses import dataclass
from random import Random

EMAIL_DOMAIN = "seedtrust.example"
"""Every address of a seeded company ends so, which is how the seed knows its own."""
LONGEST_NAME = 35

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

# Routing numbers that banks publish; each passes the check digit.
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
    """Where a payee's money goes."""

    routing_number: str
    account_number: str
    account_type: str


def full_name(rng: Random) -> str:
    """Return a name that the bank takes: 35 characters at most."""
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"[:LONGEST_NAME]


def email(name: str, user_id: int, group: str) -> str:
    """Return an address that no one else has and that no mail server delivers to."""
    readable = "".join(letter for letter in name.lower().replace(" ", ".") if letter.isascii() and letter != "'")
    return f"{readable}.{user_id}@{group}.{EMAIL_DOMAIN}"


def payee_account(rng: Random) -> PayeeAccount:
    """Return an account with a real bank's routing number; its first digit keeps it clear of the sandbox's refusals."""
    digits = rng.randint(9, 12)
    return PayeeAccount(
        routing_number=rng.choice(ROUTING_NUMBERS),
        account_number="7" + "".join(str(rng.randint(0, 9)) for _ in range(digits - 1)),
        account_type="savings" if rng.random() < 0.2 else "checking",
    )
