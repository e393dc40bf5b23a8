"""The time edge where what it leans on is away."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

import worker
from domain import heartbeat


def test_the_clock_outlives_its_database(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        raise OperationalError("INSERT", {}, Exception("no connection"))

    monkeypatch.setattr(heartbeat, "beat", away)
    worker._beat()
