"""Whether the whole sale is held, or a tenth of it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", default=False, help="200 tickets instead of 20")
    parser.addoption("--rarely", type=int, default=1, help="so many times as rarely as the pages say (1)")
