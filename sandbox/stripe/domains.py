"""Payment method domains: the hosts on which wallets' buttons may stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from stripe import params as types

from sandbox.store import Stored
from sandbox.stripe import lists, objects
from sandbox.stripe.wire import ApiError
from sandbox.stripe.world import World

Body = dict[str, Any]
KIND = "payment_method_domain"
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
# Names that no resolver knows: Apple cannot look there.
_NOWHERE = ".invalid"


def table(world: World) -> list[tuple[str, str, type, Callable[..., Body]]]:
    """The routes: method, path, the SDK's type of the parameters, and who answers."""
    domains = Domains(world)
    path, one = "payment_method_domains", "([^/]+)"
    return [
        ("POST", path, types.PaymentMethodDomainCreateParams, domains.create),
        ("GET", path, types.PaymentMethodDomainListParams, domains.list),
        ("GET", f"{path}/{one}", types.PaymentMethodDomainRetrieveParams, domains.retrieve),
        ("POST", f"{path}/{one}", types.PaymentMethodDomainUpdateParams, domains.update),
        ("POST", f"{path}/{one}/validate", types.PaymentMethodDomainValidateParams, domains.validate),
    ]


class Domains:
    """The account's list of hosts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, params: Body) -> Body:
        domain = params["domain_name"]
        if not _HOST.fullmatch(domain) or len(domain) > 253:
            raise ApiError(f"The domain name {domain} is not valid.", param="domain_name")
        known = self._find(domain)
        if known is not None:
            return known.body
        enabled = params.get("enabled", True)
        body = objects.payment_method_domain(
            domain, enabled, not domain.endswith(_NOWHERE), self._world.now()
        )
        self._world.store.add(KIND, body)
        return body

    def list(self, params: Body) -> Body:
        filters = [
            (f"json_extract(body, '$.{name}') = ?", params[name])
            for name in ("domain_name", "enabled")
            if name in params
        ]
        return lists.page(self._world, KIND, "/v1/payment_method_domains", params, filters)

    def retrieve(self, params: Body, domain_id: str) -> Body:
        return self._world.get(KIND, domain_id).body

    def update(self, params: Body, domain_id: str) -> Body:
        stored = self._world.get(KIND, domain_id)
        if "enabled" in params:
            stored.body["enabled"] = params["enabled"]
            self._world.store.save(stored)
        return stored.body

    def validate(self, params: Body, domain_id: str) -> Body:
        return self._world.get(KIND, domain_id).body

    def _find(self, domain: str) -> Stored | None:
        found = self._world.store.select(KIND, "json_extract(body, '$.domain_name') = ?", [domain])
        return found[0] if found else None
