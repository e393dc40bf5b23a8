"""Kaspi, in the mode that KASPI_MODE names. docs/kaspi.md tells what is known of each, and how surely."""

from __future__ import annotations

from config import Settings
from domain.providers.contract import Provider
from domain.providers.kaspi_biller import KaspiBiller
from domain.providers.kaspi_manual import KaspiManual
from domain.providers.kaspi_qr import KaspiQr


def build(settings: Settings) -> Provider:
    """The adapter of the account, in the mode of the settings; without one, an adapter that is not ready."""
    if settings.kaspi_mode == "manual":
        return KaspiManual(settings)
    return KaspiBiller(settings) if settings.kaspi_mode == "biller" else KaspiQr(settings)
