"""What goes in and out of the API, as types: amounts, moments, ids, pages.

Bodies are strict: a field that is not known, or of another type, is refused. Answers have all their fields,
always.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from blueprints.api import wire
from domain import money
from domain.errors import DomainError

# As JSON writes a number, without a sign and an exponent; no currency has more than three decimals.
_AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,3})?", re.ASCII)
_AMOUNT_WORDS = "must be an amount such as 50.00: digits, and a point before the decimals"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# A pydantic error's type -> our words. `{}` are its own facts.
_SAID = {
    "missing": "is missing",
    "extra_forbidden": "is no field here",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "has not the form that it must have: {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
    "date_type": "must be a day such as 2026-05-31",
    "date_parsing": "must be a day such as 2026-05-31",
    "date_from_datetime_parsing": "must be a day such as 2026-05-31",
    "list_type": "must be a list",
    "too_long": "has too many items",
    "too_short": "has too few items",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
}
_MOST_SAID = 3
T = TypeVar("T")


# Any other text is refused too, in words that tell where to begin.
Cursor = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"})]


# --- Bodies, queries, answers ---------------------------------------------------------------------------


class Body(BaseModel):
    """What a request carries."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """What stands behind the question mark of an address: texts, read as what they are meant to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(Query):
    """Where in a long list to go on."""

    cursor: Cursor | None = Field(
        default=None,
        description="`next` of the page before; leave it out for the first page.",
    )


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Error(BaseModel):
    """What is answered where something is wrong."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True})

    detail: str = Field(
        description="What is wrong, for a person.", examples=["There is no such participant."]
    )
    status_code: int = Field(description="The status of the answer, once more.", examples=[404])
    code: str = Field(description="What is wrong, for a program.", examples=["no_participant"])


class Page(Answer):
    """A page of a long list, the newest first. `items` is a subclass's."""

    next: str | None = Field(
        default=None, description="The `cursor` of the next page; null where this is the last one."
    )


def example(value: dict[str, Any]) -> ConfigDict:
    """The `model_config` of a body or answer that has this example in the document."""
    return ConfigDict(json_schema_extra={"examples": [value]})


# --- Types ----------------------------------------------------------------------------------------------


def _amount(value: Any) -> Decimal:
    """A JSON number or a text of the same form, as it was written. True is no 1, and 5e1 no 50."""
    if isinstance(value, wire.Written):
        text = value.text
    elif type(value) is int or type(value) is str or isinstance(value, Decimal):
        text = str(value)
    else:
        raise ValueError(_AMOUNT_WORDS)
    if not _AMOUNT.fullmatch(text):
        raise ValueError(_AMOUNT_WORDS)
    return Decimal(text)


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(value: Any) -> Any:
    """A day as a text: a number of seconds is none."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise ValueError("must be a day such as 2026-05-31") from error
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError("must be a day such as 2026-05-31")


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                # In thousandths at most, as no currency has more; 5e1 is refused, which no schema can say.
                {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 999_999_999_999,
                    "multipleOf": 0.001,
                },
                {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,3})?$"},
            ],
            "description": "A number, or a text of its form, with at most the currency's decimals.",
            "examples": [50.00, "50.00"],
        },
        mode="validation",
    ),
]
# Written as a number, with the currency's decimals.
Money = Annotated[
    Decimal,
    PlainSerializer(lambda value: value, return_type=Decimal),
    WithJsonSchema(
        {
            "type": "number",
            "description": "In whole units, with the currency's decimals.",
            "examples": [50.00],
        },
        mode="serialization",
    ),
]
Currency = Annotated[
    str,
    Field(pattern=r"^[A-Z]{3}$", description="An ISO 4217 code of three capital letters.", examples=["USD"]),
]
# A StrEnum in a body: its values, as texts. (Strictly, only Python's own members would do.)
Choice = Annotated[T, Field(strict=False)]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Moment = Annotated[
    AwareDatetime,
    PlainSerializer(_moment, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-31T14:30:00Z"]}),
]
Day = Annotated[
    date,
    BeforeValidator(_day),
    PlainSerializer(lambda value: value.isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-05-31"]}),
]


def sums(minor: int, currency: str) -> dict[str, Any]:
    """The three fields of an amount that goes out."""
    return {"amount": money.to_major(minor, currency), "amount_minor": minor, "currency": currency}


def in_minor(amount: Decimal, currency: str) -> int:
    """Minor units of what was sent. MoneyError where it has more decimals than its currency, zeros too."""
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > money.decimals(money.check_currency(currency)):
        raise money.MoneyError(
            "too_precise",
            f"{currency} amounts have at most {money.decimals(currency)} digits after the point.",
        )
    return money.to_minor(amount, currency)


class Priced(Body):
    """A body that names an amount."""

    amount: Amount
    currency: Currency

    @model_validator(mode="after")
    def _has_its_currencys_decimals(self) -> Self:
        try:
            in_minor(self.amount, self.currency)
        except DomainError as error:
            raise ValueError(error.message) from error
        return self

    @property
    def amount_minor(self) -> int:
        return in_minor(self.amount, self.currency)


# --- What was wrong, in words ---------------------------------------------------------------------------


def say(error: ValidationError) -> str:
    """The first few things that are wrong, by field."""
    found = error.errors(include_url=False, include_input=False)
    said = [_say(each["type"], each["loc"], each["msg"], each.get("ctx", {})) for each in found[:_MOST_SAID]]
    return " ".join(said)


def _say(kind: str, where: tuple[int | str, ...], words: str, facts: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in where)[:100]
    if kind == "value_error":
        told = words.removeprefix("Value error, ")
        return (
            f"{field} {told}." if field and not told.endswith(".") else f"{field}: {told}" if field else told
        )
    template = _SAID.get(kind)
    told = template.format_map(facts) if template is not None else words[:1].lower() + words[1:]
    return f"{field or 'The body'} {told}."
