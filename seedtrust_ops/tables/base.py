"""The two declarative base classes of the ORM: for the platform's tables and for this project's in schema `ops`.

This package defines only columns and types; business rules are in `domain/`.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Date, Integer, MetaData, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase

SMALL = SmallInteger()
INT = Integer()

_TYPES: dict[Any, Any] = {
    int: BigInteger(),
    str: Text(),
    bool: Boolean(),
    date: Date(),
    datetime: TIMESTAMP(timezone=True),
    dict[str, Any]: JSONB(),
}


class PlatformTable(DeclarativeBase):
    """Tables of schema `public`, owned by SeedTrust's applications and defined in `platform_schema.sql`."""

    metadata = MetaData(schema="public")
    type_annotation_map = _TYPES


class OpsTable(DeclarativeBase):
    """Tables of schema `ops`, owned by this project and created by its Alembic migrations."""

    metadata = MetaData(schema="ops")
    type_annotation_map = _TYPES
