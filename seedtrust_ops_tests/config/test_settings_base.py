"""Every settings group in the package: secrets are typed as secrets, and no error repeats a value."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import seedtrust_ops.config
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.errors import ConfigurationError

SECRET = "hunter2-and-more"
SECRET_BY_NAME = re.compile(r"KEY|PASSWORD|SECRET|TOKEN|CREDENTIAL|DATABASE_URL|POSTGRES_URL|HEARTBEAT_URL|WEBHOOK")
"""A database URL contains its password, and anybody with the heartbeat URL can keep the monitor from alerting."""


def groups() -> list[type[SettingsGroup]]:
    for module in pkgutil.iter_modules(seedtrust_ops.config.__path__, "seedtrust_ops.config."):
        importlib.import_module(module.name)
    return sorted(SettingsGroup.__subclasses__(), key=lambda group: group.__name__)


def fields() -> Iterator[tuple[type[SettingsGroup], str, FieldInfo]]:
    for group in groups():
        for field in group.model_fields.values():
            yield group, str(field.validation_alias), field


SECRETS = [(group, variable) for group, variable, _ in fields() if SECRET_BY_NAME.search(variable)]


def test_settings_groups_are_discovered() -> None:
    assert {group.__name__ for group in groups()} >= {"DatabaseSettings", "MailSettings", "HeartbeatSettings"}
    assert len(SECRETS) >= 8


@pytest.mark.parametrize(("group", "variable"), SECRETS, ids=[variable for _, variable in SECRETS])
def test_secret_variables_are_typed_as_secrets(group: type[SettingsGroup], variable: str) -> None:
    (annotation,) = [field.annotation for _, name, field in fields() if name == variable]
    assert SecretStr.__name__ in str(annotation)


@pytest.mark.parametrize(
    ("group", "variable"), [(group, name) for group, name, _ in fields()], ids=[name for _, name, _ in fields()]
)
@pytest.mark.parametrize("value", [SECRET, f"{SECRET}\n\x1b[31m é", f"https://somebody:{SECRET}@host.example/?x#y"])
def test_invalid_values_are_never_repeated(group: type[SettingsGroup], variable: str, value: str) -> None:
    """People put secrets into the wrong variables. A valid value may be shown only if its name is not secret."""
    try:
        shown = repr(group.read({variable: value}))
    except ConfigurationError as error:
        shown = f"{error} {error!r} {error.__cause__} {error.__context__ if not error.__suppress_context__ else ''}"
    else:
        if not SECRET_BY_NAME.search(variable):
            return
    assert SECRET not in shown


def test_every_variable_belongs_to_one_group() -> None:
    names = [name for _, name, _ in fields()]
    assert len(names) == len(set(names))


NUMBERS = [
    (group, name)
    for group, name, field in fields()
    if {int, float} & {field.annotation, *get_args(field.annotation)} and name.isupper()
]


@pytest.mark.parametrize(("group", "variable"), NUMBERS, ids=[name for _, name in NUMBERS])
def test_number_that_cannot_be_calculated_with_is_refused(group: type[SettingsGroup], variable: str) -> None:
    for value in (10**30, 2**63 - 1, 10**9 + 1):
        with pytest.raises(ConfigurationError, match=f"{variable} is invalid: "):
            group.read({variable: str(value)})
