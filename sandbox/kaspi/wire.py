"""What travels: an envelope with a StatusCode, refusals too, by HTTP 200; amounts in tenge."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from flask import Response

NO_CERTIFICATE = -10000
NO_DEVICE = -1501
DEVICE_ELSEWHERE = -1503
NO_PAYMENT = -1601
NO_TRADE_POINT = -99000002
TOO_MUCH_BACK = -99000005
NOT_RETURNABLE = -99000011
NOT_IN_PART = -99000020
WRONG_AMOUNT = 990000028
UNAVAILABLE = -999
_WORDS = {
    NO_CERTIFICATE: "Отсутствует сертификат клиента",
    NO_DEVICE: "Устройство с заданным идентификатором не найдено",
    DEVICE_ELSEWHERE: "Устройство уже добавлено в другую торговую точку",
    NO_PAYMENT: "Покупка не найдена",
    NO_TRADE_POINT: "Торговая точка не найдена",
    TOO_MUCH_BACK: "Сумма возврата не может превышать сумму покупки",
    NOT_RETURNABLE: "Невозможно вернуть покупку (несоответствующий статус покупки)",
    NOT_IN_PART: "Частичный возврат невозможен",
    WRONG_AMOUNT: "Указана неверная сумма операции",
    UNAVAILABLE: "Сервис временно недоступен",
}
# What is asked for in one go, in tiyn.
_MOST = 10**11


class Refusal(Exception):
    """What Kaspi answers instead: a StatusCode and its words."""

    def __init__(self, code: int, words: str = "") -> None:
        super().__init__(words or _WORDS.get(code, "Ошибка"))
        self.code = code


def good(data: Any) -> Response:
    """An answer."""
    return _envelope(0, "Успешно", data)


def refused(refusal: Refusal) -> Response:
    """A refusal, by HTTP 200 as everything."""
    return _envelope(refusal.code, str(refusal), None)


def at_the_gate(status: int) -> Response:
    """What comes from in front of the API, and so has no envelope."""
    words = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}
    body = {"error": words.get(status, "Internal Server Error")}
    return Response(json.dumps(body), status, content_type="application/json")


def _envelope(code: int, message: str, data: Any) -> Response:
    body = {"StatusCode": code, "Message": message, "Data": data}
    return Response(json.dumps(body, ensure_ascii=False), content_type="application/json; charset=utf-8")


def tiyn(amount: Any) -> int:
    """An amount that was sent, in tiyn. Raises Refusal for what is none: it is sent in tenge, as a number."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise Refusal(WRONG_AMOUNT)
    exact = Decimal(repr(amount)) * 100
    if not exact.is_finite() or exact != exact.to_integral_value() or not 0 < exact <= _MOST:
        raise Refusal(WRONG_AMOUNT)
    return int(exact)


def tenge(amount_minor: int) -> float:
    """An amount as it is answered."""
    return amount_minor / 100


def show(amount_minor: int) -> str:
    """An amount for a person: `12,500 ₸`."""
    whole, rest = divmod(amount_minor, 100)
    return f"{whole:,}{f'.{rest:02}' if rest else ''} ₸"
