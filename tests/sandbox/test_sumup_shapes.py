"""The table of SumUp's fields against the official SDK: names, types, words, what is required."""

from __future__ import annotations

import datetime
import inspect
import types
import typing
from typing import Any, Literal, get_args, get_origin

import pydantic
import pytest
import sumup.types as sdk
import typing_extensions
from sumup.checkouts import resource as checkouts
from sumup.memberships import resource as memberships
from sumup.transactions import resource as transactions

from sandbox.sumup import shapes
from sandbox.sumup.money import CURRENCIES
from sandbox.sumup.shapes import Field, Shape

ANSWERS: list[tuple[Shape, Any]] = [
    (shapes.CHECKOUT, sdk.Checkout),
    (shapes.CHECKOUT_SUCCESS, sdk.CheckoutSuccess),
    (shapes.TRANSACTION_FULL, sdk.TransactionFull),
    (shapes.TRANSACTION_HISTORY, transactions.ListTransactionsV21200Response),
    (shapes.MERCHANT, sdk.Merchant),
    (shapes.MEMBERSHIPS, memberships.ListMemberships200Response),
    (shapes.ERROR, sdk.Error),
    (shapes.ERROR_EXTENDED, sdk.ErrorExtended),
    (shapes.ERROR_FORBIDDEN, sdk.ErrorForbidden),
    (shapes.PROBLEM, sdk.Problem),
]
REQUIRED: Any = typing_extensions.Required
_KINDS: dict[str, tuple[Any, ...]] = {
    "string": (str,),
    "uri": (str,),
    "number": (float,),
    "integer": (int, float),
    "boolean": (bool,),
    "date-time": (datetime.datetime,),
    "date": (datetime.date,),
}


def members(hint: Any) -> list[Any]:
    """The alternatives of a type, without what only annotates it."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [inner for arg in get_args(hint) for inner in members(arg)]
    if origin in (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired):
        return members(get_args(hint)[0])
    return [hint]


def differences(shape: Shape, model: Any, path: str = "") -> list[str]:
    """Where the table says something else than a model or a TypedDict of the SDK."""
    hints = typing_extensions.get_type_hints(model, include_extras=True)
    found = [f"{path}{name} is not known to the SDK" for name in shape if name not in hints]
    for name, field in shape.items():
        if name in hints:
            found += _field(field, members(hints[name]), f"{path}{name}")
    return found


def _field(field: Field, hints: list[Any], path: str) -> list[str]:
    words = {word for hint in hints if get_origin(hint) is Literal for word in get_args(hint)}
    if words and field.words:
        return [f"{path}: {word} is no word of the SDK" for word in field.words if word not in words]
    if field.kind == "list":
        items = [arg for hint in hints for arg in get_args(hint)]
        hints = [inner for item in items for inner in members(item)]
        if field.inside is None:
            return [] if str in hints else [f"{path} is a list of {hints}"]
    if field.inside is not None:
        models = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel)]
        models += [hint for hint in hints if typing_extensions.is_typeddict(hint)]
        return differences(field.inside, models[0], f"{path}.") if models else [f"{path} is {hints}"]
    return [] if any(kind in hints for kind in _KINDS[field.kind]) else [f"{path} is {hints}"]


@pytest.mark.parametrize(("shape", "model"), ANSWERS, ids=lambda value: getattr(value, "__name__", ""))
def test_answers(shape: Shape, model: type[pydantic.BaseModel]) -> None:
    assert differences(shape, model) == []
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    assert required <= {name for name, field in shape.items() if field.required}


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        (shapes.CREATE_CHECKOUT, checkouts.CreateCheckoutBodyInput),
        (shapes.UPDATE_CHECKOUT, checkouts.UpdateCheckoutBodyInput),
    ],
)
def test_requests(shape: Shape, model: Any) -> None:
    assert differences(shape, model) == []
    hints = typing_extensions.get_type_hints(model, include_extras=True)
    assert shape.keys() == hints.keys()
    required = {name for name, hint in hints.items() if get_origin(hint) is REQUIRED}
    assert required == {name for name, field in shape.items() if field.required}


@pytest.mark.parametrize(
    ("shape", "method"),
    [
        (shapes.LIST_CHECKOUTS, checkouts.CheckoutsResource.list),
        (shapes.GET_TRANSACTION, transactions.TransactionsResource.get),
        (shapes.LIST_TRANSACTIONS, transactions.TransactionsResource.list),
        (shapes.REFUND, transactions.TransactionsResource.refund),
    ],
)
def test_parameters_of_calls(shape: Shape, method: Any) -> None:
    known = set(inspect.signature(method).parameters) - {"self", "headers", "merchant_code", "transaction_id"}
    assert {name.removesuffix("[]") for name in shape} == known


def test_every_currency_is_one_of_the_sdk_s() -> None:
    words = {word for hint in members(sdk.Currency) if get_origin(hint) is Literal for word in get_args(hint)}
    # Croatia pays in euros since 2023.
    assert set(CURRENCIES) == words - {"HRK"}


def test_the_check_finds_what_is_wrong() -> None:
    """A table that let everything through would make every other test here worth nothing."""
    good = {"id": "c", "amount": 1.5, "status": "PAID", "transactions": [{"status": "FAILED"}]}
    assert shapes.flaws(good, shapes.CHECKOUT) == []
    wrongs: list[dict[str, Any]] = [
        {"amount": "1.5"},
        {"status": "DONE"},
        {"colour": "red"},
        {"transactions": [{"status": "PAID"}]},
        {"transactions": {}},
        {"date": "2026-01-01"},
        {"id": None},
    ]
    for wrong in wrongs:
        assert shapes.flaws(good | wrong, shapes.CHECKOUT), wrong
