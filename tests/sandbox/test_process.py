"""The process: it starts, keeps its state, bears a crowd, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params
from tests.support.sandbox import ROOT, Sandbox, free_port, start_sandbox


def run(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_not_in_production(tmp_path: Path) -> None:
    refused = run(KASSA_ENV="production", KASSA_HOME=str(tmp_path))
    assert refused.returncode == 2 and "does not start in production" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_none_or_taken(box: Sandbox, tmp_path: Path) -> None:
    home = {"KASSA_ENV": "development", "KASSA_HOME": str(tmp_path)}
    assert "SANDBOX_PORT must be a port" in run(SANDBOX_PORT="http", **home).stderr
    taken = run(SANDBOX_PORT=box.base_url.rpartition(":")[2], SANDBOX_SMTP_PORT=str(free_port()), **home)
    assert taken.returncode == 1 and "in use" in taken.stderr
    mail_taken = run(SANDBOX_PORT=str(free_port()), SANDBOX_SMTP_PORT=str(box.smtp_port), **home)
    assert mail_taken.returncode == 1 and "in use" in mail_taken.stderr


@pytest.mark.parametrize("end", ["terminate", "kill", "interrupt"])
def test_its_state_survives(tmp_path: Path, params: Params, end: str) -> None:
    first = start_sandbox(tmp_path)
    client = stripe.StripeClient("sk_test_kassa_sandbox", base_addresses={"api": f"{first.base_url}/stripe"})
    key: Params = {"idempotency_key": "key-1"}
    made = client.v1.checkout.sessions.create(params, key)
    first.advance(60)
    first.do(made.id, "pay")
    signals = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL, "interrupt": signal.SIGINT}
    first.process.send_signal(signals[end])
    assert first.process.wait(timeout=10) == (-signal.SIGKILL if end == "kill" else 0)
    port = int(first.base_url.rpartition(":")[2])
    second = start_sandbox(tmp_path, port=port, smtp_port=first.smtp_port)
    try:
        assert second.get("payments")[0]["status"] == "paid"
        assert second.get("clock")["offset_seconds"] == 60
        assert client.v1.checkout.sessions.create(params, key).id == made.id
    finally:
        assert second.stop() == 0


def test_it_ends_while_a_request_hangs(tmp_path: Path) -> None:
    box = start_sandbox(tmp_path)
    box.faults("timeout_before", seconds=60)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(requests.get, f"{box.base_url}/stripe/v1/account", timeout=30)
        until = time.monotonic() + 10
        while not box.calls() and time.monotonic() < until:
            time.sleep(0.05)
        begun = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - begun < 5
        with pytest.raises(requests.ConnectionError):
            hanging.result()


def test_a_hundred_at_once(
    box: Sandbox, client: stripe.StripeClient, params: Params, pay: Callable[..., stripe.checkout.Session]
) -> None:
    def create(number: int) -> str:
        wanted: Params = {**params, "client_reference_id": f"order-{number}"}
        return client.v1.checkout.sessions.create(wanted).id

    with ThreadPoolExecutor(100) as pool:
        assert len(set(pool.map(create, range(200)))) == 200
    listed = [s.id for s in client.v1.checkout.sessions.list({"limit": 100}).auto_paging_iter()]
    assert len(listed) == len(set(listed)) == 200


def test_one_payment_among_many_confirmations(
    box: Sandbox, client: stripe.StripeClient, params: Params
) -> None:
    made = client.v1.checkout.sessions.create(params)

    def pay(number: int) -> int:
        body = {"do": "pay"}
        return requests.post(f"{box.base_url}/control/payments/{made.id}", json=body, timeout=30).status_code

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(pay, range(20))) == [200] + [409] * 19
    assert len(client.v1.charges.list().data) == 1
