"""Whether the whole sale is held, or a tenth of it."""

from __future__ import annotations

import pytest

from tests.hoarding.sale import HOARDERS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", default=False, help="200 tickets instead of 20")
    parser.addoption("--hoarder", choices=[*HOARDERS], help="only this kind (all of them)")
    parser.addoption("--rarely", type=int, default=1, help="so many times as rarely as the pages say (1)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every kind of hoarder in the whole sale; in the short one whoever holds the most."""
    if "hoarder" in metafunc.fixturenames:
        chosen, whole = metafunc.config.getoption("--hoarder"), metafunc.config.getoption("--whole")
        metafunc.parametrize("hoarder", [chosen] if chosen else [*HOARDERS] if whole else ["takes_ten"])
