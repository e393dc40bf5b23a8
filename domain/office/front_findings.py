"""Whether visitors are told apart: what stands in front of us, as far as their addresses show it."""

from __future__ import annotations

import config
from domain.office.finding import OK, WARN, Finding
from domain.security import fronts


def look() -> Finding:
    """Where most of this and the last hour's requests came from."""
    title, found = "Visitors' addresses", fronts.most()
    if found is None:
        return Finding("visitors", title, OK, "No one address is most of the visitors.")
    hops = config.get().trusted_proxies
    words = f"{found.share:.0%} of the visits come from {found.network}"
    slows = "Limits for each network only slow down there, instead of refusing"
    if found.is_proxy:
        words += f", an address that only a proxy in front of Kassa can have. {slows}."
        fix = (
            f"Set TRUSTED_PROXIES to how many proxies stand in front (it is {hops}), and let each of them "
            "pass X-Forwarded-For on: docs/deploying.md."
        )
    else:
        words += f". {slows}."
        fix = (
            "Is that a CDN or a proxy of yours? Then TRUSTED_PROXIES is too small "
            f"(it is {hops}). Is it a school or an office? Then all is well."
        )
    return Finding("visitors", title, WARN, words, fix)
