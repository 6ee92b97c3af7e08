"""Encrypted columns: keys rotate, damaged tokens differ from ones without a key, and no key or content is exposed."""

import base64
import traceback

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from seedtrust_ops.config import FieldKeySettings
from seedtrust_ops.errors import ConfigurationError, DamagedToken, UnreadableToken
from seedtrust_ops.orchestration.dagster_resources import FieldCipherResource
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops_tests.support.environment import SetVariables

NUMBER = "730051186423"
OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def cipher_of(*keys: str) -> FernetFieldCipher:
    return FernetFieldCipher([SecretStr(key) for key in keys])


def test_token_decrypts_to_its_value_and_does_not_show_it() -> None:
    token = cipher_of(NEW).encrypt(NUMBER)
    assert cipher_of(NEW).decrypt(token) == NUMBER
    assert NUMBER not in token


def test_rotated_keys_open_old_tokens_and_encrypt_with_the_new_key() -> None:
    rotated = cipher_of(NEW, OLD)
    assert rotated.decrypt(cipher_of(OLD).encrypt(NUMBER)) == NUMBER
    assert cipher_of(NEW).decrypt(rotated.encrypt(NUMBER)) == NUMBER
    with pytest.raises(UnreadableToken):
        cipher_of(OLD).decrypt(rotated.encrypt(NUMBER))


def test_token_of_another_key_is_unreadable_and_not_damaged() -> None:
    token = cipher_of(OTHER).encrypt(NUMBER)
    assert not cipher_of(NEW, OLD).can_decrypt(token)
    with pytest.raises(UnreadableToken, match="none of the configured keys opens the token") as raised:
        cipher_of(NEW, OLD).decrypt(token)
    assert not isinstance(raised.value, DamagedToken)


def damaged_tokens() -> dict[str, str]:
    token = cipher_of(NEW).encrypt(NUMBER)
    raw = base64.urlsafe_b64decode(token)
    return {
        "empty": "",
        "a plain number": NUMBER,
        "not base64": "not a token!",
        "cut off": token[:-9],
        "one block short": base64.urlsafe_b64encode(raw[:-20]).decode(),
        "another version": base64.urlsafe_b64encode(b"\x81" + raw[1:]).decode(),
        "not ASCII": token[:40] + "é" + token[41:],
        "a lone surrogate": token[:40] + "\ud800",
    }


@pytest.mark.parametrize("damage", damaged_tokens())
def test_value_that_is_no_token_is_damaged_with_any_key(damage: str) -> None:
    token = damaged_tokens()[damage]
    assert not cipher_of(NEW).can_decrypt(token)
    with pytest.raises(DamagedToken, match="the token is damaged"):
        cipher_of(NEW).decrypt(token)


def test_token_with_a_changed_byte_never_opens() -> None:
    raw = bytearray(base64.urlsafe_b64decode(cipher_of(NEW).encrypt(NUMBER)))
    raw[30] ^= 1
    token = base64.urlsafe_b64encode(raw).decode()
    assert not cipher_of(NEW).can_decrypt(token)
    with pytest.raises(UnreadableToken):
        cipher_of(NEW).decrypt(token)


def test_token_with_binary_content_is_unreadable() -> None:
    token = Fernet(NEW).encrypt(b"\xff\xfe").decode()
    with pytest.raises(UnreadableToken):
        cipher_of(NEW).decrypt(token)


@pytest.mark.parametrize(
    "bad",
    ["short", NEW[:-2], NEW + NEW, f"{NEW}\n{OLD}", "é" * 44, "!" * 44],
    ids=["a word", "cut off", "two without a comma", "two on two lines", "not ASCII", "not base64"],
)
def test_invalid_key_is_reported_without_the_key(bad: str) -> None:
    settings = FieldKeySettings.read({"SEEDTRUST_FIELD_KEY": f"{NEW},{bad}"})
    with pytest.raises(ConfigurationError, match="SEEDTRUST_FIELD_KEY can't be used") as raised:
        FernetFieldCipher(settings.keys)
    shown = "".join(traceback.format_exception(raised.value))
    assert not any(key in shown for key in (NEW, bad))


def test_missing_key_is_named_in_the_error(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_FIELD_KEY=None, SEEDTRUST_DATABASE_URL="postgresql://localhost/seedtrust")
    with pytest.raises(ConfigurationError, match="SEEDTRUST_FIELD_KEY is not set"):
        FieldCipherResource().cipher()


def test_cipher_and_its_errors_show_neither_keys_nor_content() -> None:
    cipher = cipher_of(NEW, OLD)
    shown = [repr(cipher), str(cipher)]
    for token in (cipher_of(OTHER).encrypt(NUMBER), NUMBER):
        with pytest.raises(UnreadableToken) as raised:
            cipher.decrypt(token)
        shown.append("".join(traceback.format_exception(raised.value)) + repr(raised.value))
        assert token not in shown[-1]
    assert not any(secret in text for text in shown for secret in (NEW, OLD, NUMBER))
