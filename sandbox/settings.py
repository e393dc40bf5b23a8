"""What the sandbox is told by its environment, and the constants that make it the sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Public on purpose: Kassa refuses these in production, so they can never guard real money.
SECRET_KEY = "sk_test_kassa_sandbox"
PUBLISHABLE_KEY = "pk_test_kassa_sandbox"
WEBHOOK_SECRET = "whsec_kassa_sandbox"
ACCOUNT = "acct_kassasandbox"
SUMUP_API_KEY = "sup_sk_kassa_sandbox"
SUMUP_MERCHANT = "MKASSA01"
SUMUP_CLIENT_ID = "cc_classic_kassa_sandbox"
SUMUP_CLIENT_SECRET = "cc_sk_classic_kassa_sandbox"
KASPI_API_KEY = "kaspi_kassa_sandbox"
KASPI_DEVICE_TOKEN = "device_kassa_sandbox"
KASPI_PFX_PASSWORD = "pfx_kassa_sandbox"
KASPI_BIN = "990140001234"
RESEND_KEY = "re_kassa_sandbox"
MERCHANT = "Kassa Sandbox"


class Refused(Exception):
    """The sandbox cannot start like this; its text says why, for the operator."""


@dataclass(frozen=True)
class Settings:
    """Where this sandbox listens and keeps its state. `webhook_url` may be changed through /control."""

    home: Path
    port: int
    smtp_port: int
    public_url: str
    webhook_url: str
    # The door by TLS, at which Kaspi asks for a client certificate; 0 is any port that is free.
    tls_port: int = 0


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises Refused in production, and for a port that is not one."""
    environ = os.environ if environ is None else environ
    if environ.get("KASSA_ENV", "") == "production":
        raise Refused(
            "The sandbox moves no real money and is for development only: it does not start in production."
        )
    port = _port(environ, "SANDBOX_PORT", 12111)
    return Settings(
        home=Path(environ.get("KASSA_HOME") or ".kassa").resolve(),
        port=port,
        smtp_port=_port(environ, "SANDBOX_SMTP_PORT", 12525),
        public_url=(environ.get("SANDBOX_PUBLIC_URL") or f"http://127.0.0.1:{port}").rstrip("/"),
        webhook_url=environ.get("SANDBOX_WEBHOOK_URL", "").strip(),
        tls_port=_port(environ, "SANDBOX_TLS_PORT", 0) if environ.get("SANDBOX_TLS_PORT", "").strip() else 0,
    )


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise Refused(f"{name} must be a port number between 1 and 65535 (it is {text!r}).")
    return int(text)
