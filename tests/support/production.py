"""A Kassa in production whose providers are the sandbox: the settings, the web process, the sandbox's keys.

Everything is production's own, `config.load` and its refusals included. Only where the providers' APIs are
is replaced, in the settings that were loaded. `python -m tests.support.production` is a sandbox whose account
has the keys below, for production takes none that are marked as the sandbox's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from flask import Flask

import config

# What only a development has, or what would be another deployment's.
_NOT_IN_PRODUCTION = ("KASSA_ENV", "KASSA_LIMITS", "STRIPE_API_BASE", "SUMUP_API_BASE", "KASPI_API_BASE")
# Keys that look like an operator's: production refuses the sandbox's own.
KEYS = {
    "SECRET_KEY": "only-for-these-tests-0123456789abcdef",
    "STRIPE_SECRET_KEY": "sk_test_51KassaInProduction",
    "STRIPE_PUBLISHABLE_KEY": "pk_test_51KassaInProduction",
    "STRIPE_WEBHOOK_SECRET": "whsec_KassaInProduction",
    "SUMUP_API_KEY": "sup_sk_KassaInProduction",
    "SUMUP_MERCHANT_CODE": "MKASSA01",
    "SUMUP_CLIENT_ID": "cc_classic_KassaInProduction",
    "SUMUP_CLIENT_SECRET": "cc_sk_classic_KassaInProduction",
    "SUMUP_TEST_ACCOUNT": "true",
    "KASPI_MODE": "r1",
    "KASPI_API_KEY": "KaspiInProduction",
    "KASPI_TRADE_POINT": "1001",
    "KASPI_DEVICE_ID": "kassa",
    "KASPI_DEVICE_TOKEN": "KaspiDeviceInProduction",
    "KASPI_TEST": "true",
}


def variables(environ: Mapping[str, str], public_url: str) -> dict[str, str]:
    """The environment of a production at `public_url`, made of a development's."""
    kept = {name: value for name, value in environ.items() if name not in _NOT_IN_PRODUCTION}
    return kept | KEYS | {"PUBLIC_URL": public_url}


def settings(environ: Mapping[str, str], public_url: str, providers: str) -> config.Settings:
    """What such a production loads; the providers are at the sandbox's address."""
    return _with_providers(config.load(variables(environ, public_url)), providers)


def create_app(providers: str) -> Flask:
    """For the web server: the application that this process's environment describes."""
    # Not imported by the sandbox, which needs none of it.
    made: Flask = import_module("app").create_app(_with_providers(config.load(os.environ), providers))
    return made


def _with_providers(loaded: config.Settings, sandbox: str) -> config.Settings:
    bases: dict[str, Any] = {f"{name}_api_base": f"{sandbox}/{name}" for name in ("stripe", "sumup", "kaspi")}
    return replace(loaded, **bases)


def run_sandbox() -> int:
    """The sandbox, with an operator's keys."""
    from sandbox import __main__, settings

    settings.SECRET_KEY = KEYS["STRIPE_SECRET_KEY"]
    settings.PUBLISHABLE_KEY = KEYS["STRIPE_PUBLISHABLE_KEY"]
    settings.WEBHOOK_SECRET = KEYS["STRIPE_WEBHOOK_SECRET"]
    settings.SUMUP_API_KEY = KEYS["SUMUP_API_KEY"]
    settings.SUMUP_CLIENT_ID = KEYS["SUMUP_CLIENT_ID"]
    settings.SUMUP_CLIENT_SECRET = KEYS["SUMUP_CLIENT_SECRET"]
    settings.KASPI_API_KEY = KEYS["KASPI_API_KEY"]
    settings.KASPI_DEVICE_TOKEN = KEYS["KASPI_DEVICE_TOKEN"]
    return __main__.main()


if __name__ == "__main__":
    sys.exit(run_sandbox())
