"""Production's own settings, with the sandbox where the providers are."""

from __future__ import annotations

from dataclasses import replace

import config

# What only a development has, or what would be another deployment's.
_NOT_IN_PRODUCTION = ("KASSA_ENV", "KASSA_LIMITS", "STRIPE_API_BASE", "SUMUP_API_BASE")
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
}


def settings(environ: dict[str, str], public_url: str, providers: str) -> config.Settings:
    """What `environ` makes of a production at `public_url`; the providers are at the sandbox's address."""
    variables = {name: value for name, value in environ.items() if name not in _NOT_IN_PRODUCTION}
    loaded = config.load(variables | KEYS | {"PUBLIC_URL": public_url})
    return replace(loaded, stripe_api_base=f"{providers}/stripe", sumup_api_base=f"{providers}/sumup")
