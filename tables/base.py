"""What the tables share: their base, times, JSON, and text that has few values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import Enum, TextClause, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from extensions import Base as Base

Time = TIMESTAMP(timezone=True)
Json = dict[str, Any]


def one_of(kind: type[StrEnum]) -> Enum:
    """A text column that the database holds to the members of `kind` by a CHECK."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=kind.__name__.lower(),
        values_callable=lambda members: [m.value for m in members],
    )


def unguessable(what: str) -> TextClause:
    """The default of a public id, made by the database: `payment_` and 32 random hexadecimal digits."""
    return text(f"'{what}_' || replace(gen_random_uuid()::text, '-', '')")
