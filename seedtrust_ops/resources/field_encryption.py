"""Decrypts and encrypts the platform's encrypted columns with Fernet keys, the newest first.

It holds keys and nothing else: who may see what was decrypted is `domain/transfers/account_numbers`.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from seedtrust_ops.errors import ConfigurationError, DamagedToken, UnreadableToken

# Fernet specification: version byte 0x80, 8 of time, 16 of IV, blocks of 16 of ciphertext, 32 of HMAC.
_OVERHEAD = 1 + 8 + 16 + 32
_BLOCK = 16
_VERSION = 0x80
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


class FernetFieldCipher:
    """The cipher of `SEEDTRUST_FIELD_KEY`: encrypts with the first key, decrypts with any."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        """Take the keys, newest first.

        Raises:
            ConfigurationError: when one is no Fernet key.
        """
        texts = [key.get_secret_value() for key in keys]
        # The library takes two keys with no comma between them for the first one.
        if not all(_KEY.fullmatch(text) for text in texts):
            raise ConfigurationError(
                "SEEDTRUST_FIELD_KEY can't be used: each key in it must be 32 bytes in url-safe base64, as "
                "`cryptography.fernet.Fernet.generate_key()` makes them, with commas between them."
            )
        self._keys = [Fernet(text) for text in texts]
        self._fernet = MultiFernet(self._keys)

    def encrypt(self, plain: str) -> str:
        """Return a token for `plain` under the newest key."""
        return self._fernet.encrypt(plain.encode()).decode()

    def decrypt(self, token: str) -> str:
        """Return what `token` holds.

        Raises:
            UnreadableToken: when none of the keys opens it; `DamagedToken` when no key could.
        """
        try:
            return self._fernet.decrypt(token).decode()
        except (InvalidToken, ValueError):
            # ValueError: the token is not ASCII, or what it holds is no text.
            raise _unreadable(token) from None

    def key_of(self, token: str) -> int:
        """Return the place, from 0, of the key that opens `token`: its signature is checked, its content not read.

        Raises:
            UnreadableToken: as `decrypt`.
        """
        for place, key in enumerate(self._keys):
            try:
                key.extract_timestamp(token)
            except (InvalidToken, ValueError):
                continue
            return place
        raise _unreadable(token)

    def under_newest_key(self, token: str) -> str:
        """Return a token of the newest key that holds what `token` holds, and tells the same time of encryption.

        Raises:
            UnreadableToken: as `decrypt`.
        """
        try:
            return self._fernet.rotate(token).decode()
        except (InvalidToken, ValueError):
            raise _unreadable(token) from None

    def opens(self, token: str) -> bool:
        """Return whether one of the keys opens `token`."""
        try:
            self._fernet.decrypt(token)
        except (InvalidToken, ValueError):
            return False
        return True


def _unreadable(token: str) -> UnreadableToken:
    if _has_fernet_shape(token):
        return UnreadableToken("no key at hand opens the token")
    return DamagedToken("the token is damaged")


def _has_fernet_shape(token: str) -> bool:
    try:
        raw = base64.urlsafe_b64decode(token)
    except (ValueError, binascii.Error):
        return False
    return len(raw) > _OVERHEAD and (len(raw) - _OVERHEAD) % _BLOCK == 0 and raw[0] == _VERSION
