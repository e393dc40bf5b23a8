"""The sandbox's Kaspi: its API in three forms, certificates, the emulator, the page, /control, the biller."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import requests

from domain.providers import kaspi_certificate
from sandbox.kaspi import certificates
from tests.support.sandbox import Sandbox

BIN = "990140001234"
DEVICE = "device_kassa_sandbox"


@dataclass
class Client:
    """One form of the API, asked as a merchant's program does."""

    http: httpx.Client
    form: str

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._read(self.http.get(f"{self.form}/{path}", params=query))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        if self.form == "r3":
            body.setdefault("OrganizationBin", BIN)
        return self._read(self.http.post(f"{self.form}/{path}", json=body))

    def create(self, amount: Any = 9000, **more: Any) -> dict[str, Any]:
        wanted = {"DeviceToken": DEVICE, "Amount": amount, "ExternalId": "attempt-1", **more}
        return self.post("v01/qr/create", **wanted)

    def status(self, payment_id: Any) -> dict[str, Any]:
        told: dict[str, Any] = self.get(f"v02/payment/status/{payment_id}")["Data"]
        return told

    @staticmethod
    def _read(answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        envelope: dict[str, Any] = answer.json()
        assert envelope.keys() == {"StatusCode", "Message", "Data"} and envelope["Message"]
        return envelope


def connected(box: Sandbox, form: str) -> Client:
    told = box.get("settings")["kaspi"]
    if form == "r1":
        base, headers, verify = told["api_base"], {"Api-Key": told["api_key"]}, True
        return Client(httpx.Client(base_url=base, headers=headers, verify=verify, trust_env=False), form)
    shown = kaspi_certificate.identity(told["pfx"], told["pfx_password"], told["ca"])
    return Client(httpx.Client(base_url=told["tls_base"], verify=shown.context, trust_env=False), form)


@pytest.fixture(params=["r1", "r2", "r3"])
def api(request: pytest.FixtureRequest, box: Sandbox) -> Iterator[Client]:
    """Each form of the API, by what it lets in."""
    made = connected(box, request.param)
    with made.http:
        yield made


@pytest.fixture
def r1(box: Sandbox) -> Iterator[Client]:
    made = connected(box, "r1")
    with made.http:
        yield made


@pytest.fixture
def r3(box: Sandbox) -> Iterator[Client]:
    made = connected(box, "r3")
    with made.http:
        yield made


# --- The API


def test_a_code_is_made_scanned_and_paid(api: Client) -> None:
    made = api.create()["Data"]
    assert made.keys() == {
        *("QrToken", "ExpireDate", "QrPaymentId", "PaymentMethods", "QrPaymentBehaviorOptions"),
    }
    assert made["QrToken"].isdigit() and made["ExpireDate"].endswith("+05:00")
    assert made["QrPaymentBehaviorOptions"] == {
        "StatusPollingInterval": 5,
        "QrCodeScanWaitTimeout": 180,
        "PaymentConfirmationTimeout": 65,
    }
    number = made["QrPaymentId"]
    assert api.status(number)["Status"] == "QrTokenCreated"
    assert "Amount" not in api.status(number)
    assert api.post("v01/test/payment/scan", qrPaymentId=number)["StatusCode"] == 0
    assert (api.status(number)["Status"], api.status(number)["Amount"]) == ("Wait", 9000.0)
    assert api.post("v01/test/payment/confirm", qrPaymentId=number)["StatusCode"] == 0
    assert (api.status(number)["Status"], api.status(number)["Amount"]) == ("Processed", 9000.0)
    assert api.post("v01/test/payment/confirm", qrPaymentId=number)["StatusCode"] == -99000011


@pytest.mark.parametrize("what", ["scanerror", "confirmerror"])
def test_the_emulator_refuses(r1: Client, what: str) -> None:
    number = r1.create()["Data"]["QrPaymentId"]
    if what == "confirmerror":
        r1.post("v01/test/payment/scan", qrPaymentId=number)
    r1.post(f"v01/test/payment/{what}", qrPaymentId=number)
    assert r1.status(number)["Status"] == "Error"
    assert r1.post("v01/test/payment/scan", qrPaymentId=number)["StatusCode"] == -99000011


def test_each_create_is_another_payment(r1: Client) -> None:
    assert r1.create()["Data"]["QrPaymentId"] != r1.create()["Data"]["QrPaymentId"]


def test_times_by_the_sandbox_s_clock(box: Sandbox, r1: Client) -> None:
    unscanned = r1.create()["Data"]["QrPaymentId"]
    scanned = r1.create()["Data"]["QrPaymentId"]
    box.advance(179)
    r1.post("v01/test/payment/scan", qrPaymentId=scanned)
    box.advance(2)
    # Nobody knows what is said of a code whose time is over: by default what was said before.
    assert r1.status(unscanned)["Status"] == "QrTokenCreated"
    assert r1.post("v01/test/payment/scan", qrPaymentId=unscanned)["StatusCode"] == -99000011
    assert box.get(f"payments/{unscanned}")["status"] == "expired"
    assert r1.status(scanned)["Status"] == "Wait"
    box.advance(62)
    assert r1.status(scanned)["Status"] == "Wait"
    box.advance(3)
    assert r1.status(scanned)["Status"] == "Error"
    box.post("settings", {"kaspi": {"expired_status": "QrTokenDiscarded"}})
    assert r1.status(unscanned)["Status"] == "QrTokenDiscarded"


@pytest.mark.parametrize("amount", [0, -5, 10.005, "9000", None, True, 10**12])
def test_amounts_that_are_none(r1: Client, box: Sandbox, amount: Any) -> None:
    assert r1.create(amount)["StatusCode"] == 990000028
    assert box.get("payments") == []


def test_what_is_refused(api: Client) -> None:
    assert api.create(DeviceToken="nobody's")["StatusCode"] == -1501
    assert api.get("v02/payment/status/99999999999")["StatusCode"] == -1601
    assert api.get("v02/payment/status/1; drop")["StatusCode"] == -1601
    if api.form == "r3":
        assert api.create(OrganizationBin="000000000000")["StatusCode"] == -99000002


def test_who_may_ask(box: Sandbox) -> None:
    told = box.get("settings")["kaspi"]
    wanted = {"DeviceToken": DEVICE, "Amount": 5, "ExternalId": "x"}
    for key in ({}, {"Api-Key": "guessed"}):
        url = f"{told['api_base']}/r1/v01/qr/create"
        assert httpx.post(url, json=wanted, headers=key, trust_env=False).status_code == 401
    # By the first door nobody shows a certificate, and by the second one may come without.
    plain = httpx.post(f"{told['api_base']}/r2/v01/qr/create", json=wanted, trust_env=False)
    assert plain.json()["StatusCode"] == -10000
    trusting = kaspi_certificate.identity("", "", told["ca"]).context
    bare = httpx.post(f"{told['tls_base']}/r2/v01/qr/create", json=wanted, verify=trusting, trust_env=False)
    assert bare.json()["StatusCode"] == -10000
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{told['tls_base']}/r2/v01/partner/tradepoints", trust_env=False)
    assert box.get("payments") == []


def test_who_says_nothing_at_the_second_door_keeps_nobody_out(box: Sandbox) -> None:
    door = urlsplit(box.get("settings")["kaspi"]["tls_base"])
    with socket.create_connection((door.hostname or "", door.port or 0)):
        r2 = connected(box, "r2")
        with r2.http:
            assert r2.get("v01/health/ping")["StatusCode"] == 0


def test_a_stranger_s_certificate_does_not_come_in(box: Sandbox, tmp_path_factory: Any) -> None:
    told = box.get("settings")["kaspi"]
    theirs = certificates.ensure(tmp_path_factory.mktemp("stranger"), "secret")
    shown = base64.b64encode(theirs.pfx.read_bytes()).decode()
    context = kaspi_certificate.identity(shown, "secret", told["ca"]).context
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{told['tls_base']}/r2/v01/partner/tradepoints", verify=context, trust_env=False)


def test_devices(api: Client) -> None:
    points = api.get("v01/partner/tradepoints" + (f"/{BIN}" if api.form == "r3" else ""))["Data"]
    assert [point["TradePointId"] for point in points] == [1001, 1002]
    name = f"till-{api.form}"
    made = api.post("v01/device/register", DeviceId=name, TradePointId=1001)["Data"]["DeviceToken"]
    again = api.post("v01/device/register", DeviceId=name, TradePointId=1001)["Data"]["DeviceToken"]
    assert made == again
    assert api.post("v01/device/register", DeviceId=name, TradePointId=1002)["StatusCode"] == -1503
    assert api.post("v01/device/register", DeviceId=name, TradePointId=7)["StatusCode"] == -99000002
    assert api.create(DeviceToken=made)["StatusCode"] == 0
    assert api.post("v01/device/delete", DeviceToken=made)["StatusCode"] == 0
    assert api.create(DeviceToken=made)["StatusCode"] == -1501


# --- What goes back


def test_r3_gives_back_in_parts(box: Sandbox, r3: Client) -> None:
    number = r3.create()["Data"]["QrPaymentId"]
    back = {"DeviceToken": DEVICE, "QrPaymentId": number}
    assert r3.post("v01/payment/return", **back, Amount=1)["StatusCode"] == -99000011
    assert r3.get("v01/payment/details", **back)["StatusCode"] == -99000011
    box.do(str(number), "pay")
    assert r3.post("v01/payment/return", **back, Amount=9001)["StatusCode"] == -99000005
    first = r3.post("v01/payment/return", **back, Amount=2500.5)["Data"]["ReturnOperationId"]
    second = r3.post("v01/payment/return", **back, Amount=500)["Data"]["ReturnOperationId"]
    assert first != second
    details = r3.get("v01/payment/details", **back)["Data"]
    assert (details["QrPaymentId"], details["TotalAmount"]) == (number, 9000.0)
    assert details["AvailableReturnAmount"] == 5999.5
    box.post("settings", {"kaspi": {"partial_returns": False}})
    assert r3.post("v01/payment/return", **back, Amount=500)["StatusCode"] == -99000020


def test_r2_gives_back_to_who_scans_a_code(box: Sandbox) -> None:
    r2 = connected(box, "r2")
    with r2.http:
        number = r2.create()["Data"]["QrPaymentId"]
        box.do(str(number), "pay")
        code = r2.post("v01/return/create", DeviceToken=DEVICE, ExternalId="back-1")["Data"]
        back = {"DeviceToken": DEVICE, "QrReturnId": code["QrReturnId"]}
        wanted = {**back, "QrPaymentId": number, "Amount": 9000}
        assert r2.get(f"v01/return/status/{code['QrReturnId']}")["Data"]["Status"] == "QrTokenCreated"
        assert r2.post("v01/return/operations", **back)["StatusCode"] == -1601
        assert r2.post("v01/payment/return", **wanted)["StatusCode"] == -99000011
        box.do(str(code["QrReturnId"]), "scan")
        assert r2.get(f"v01/return/status/{code['QrReturnId']}")["Data"]["Status"] == "QrTokenScanned"
        (operation,) = r2.post("v01/return/operations", **back, MaxResult=10)["Data"]
        assert (operation["QrPaymentId"], operation["Amount"]) == (number, 9000.0)
        assert r2.post("v01/payment/return", **wanted)["Data"]["ReturnOperationId"]
        assert box.get(f"payments/{number}")["refunded_minor"] == 900_000


def test_r1_has_no_returns(r1: Client) -> None:
    for path in ("v01/payment/return", "v01/return/create"):
        assert r1.http.post(f"r1/{path}", json={}).status_code == 404


# --- The page, /control, and faults


def test_a_person_pays_on_the_page_of_a_link(box: Sandbox, r1: Client) -> None:
    made = r1.post("v01/qr/create-link", DeviceToken=DEVICE, Amount=9000, ExternalId="link-1")["Data"]
    assert made["PaymentLink"] == f"{box.base_url}/kaspi/pay/{made['PaymentId']}"
    page = requests.get(made["PaymentLink"], timeout=10)
    assert page.ok and "9,000 ₸" in page.text
    assert r1.status(made["PaymentId"])["Status"] == "RemotePaymentCreated"
    requests.post(made["PaymentLink"], data={"do": "scan"}, timeout=10)
    assert "Confirm 9,000 ₸" in requests.get(made["PaymentLink"], timeout=10).text
    done = requests.post(made["PaymentLink"], data={"do": "confirm"}, timeout=10)
    assert "Payment successful" in done.text
    assert r1.status(made["PaymentId"])["Status"] == "Processed"
    assert "is Processed" in requests.post(made["PaymentLink"], data={"do": "pay"}, timeout=10).text
    assert requests.post(made["PaymentLink"], data={"do": "steal"}, timeout=10).status_code == 400
    assert requests.get(f"{box.base_url}/kaspi/pay/1", timeout=10).status_code == 404


def test_control_shows_and_does(box: Sandbox, r1: Client) -> None:
    made = r1.create()["Data"]
    name = str(made["QrPaymentId"])
    (shown,) = box.get("payments")
    assert {
        "id": name,
        "provider": "kaspi",
        "status": "open",
        "amount_minor": 900_000,
        "currency": "KZT",
        "reference": "attempt-1",
        "hosted_url": f"{box.base_url}/kaspi/pay/{name}",
        "refunded_minor": 0,
    }.items() <= shown.items()
    assert requests.get(f"{box.base_url}/control", timeout=10).ok
    assert box.do(name, "pay_later")["status"] == "processing"
    assert box.do(name, "complete_later")["status"] == "paid"
    assert box.do(name, "refund", amount_minor=100_000)["refunded_minor"] == 100_000
    assert box.do(name, "refund")["refunded_minor"] == 900_000
    assert box.do(name, "tamper", set={"status": "Martian", "amount_minor": 500})["says"] == "Martian"
    assert (r1.status(name)["Status"], r1.status(name)["Amount"]) == ("Martian", 5.0)
    late = str(r1.create()["Data"]["QrPaymentId"])
    assert box.do(late, "expire")["status"] == "expired"
    assert box.do(late, "pay", force=True)["status"] == "paid"
    address = f"{box.base_url}/control/payments/{name}"
    refused: dict[int, list[dict[str, Any]]] = {
        409: [{"do": "dispute"}, {"do": "tamper", "set": {"reference": "mine"}}, {"do": "refund_fail"}],
        400: [{"do": "fly"}, {"do": "pay", "card": "4"}, {"do": "tamper", "set": {"status": 5}}],
    }
    for status, bodies in refused.items():
        for body in bodies:
            assert requests.post(address, json=body, timeout=9).status_code == status
    settings = requests.post(f"{box.base_url}/control/settings", json={"kaspi": {"colour": "red"}}, timeout=9)
    assert settings.status_code == 400


@pytest.mark.parametrize(
    ("kind", "happened"), [("timeout_before", 0), ("timeout_after", 1), ("http_500", 0), ("garbage", 0)]
)
def test_faults_reach_both_doors(box: Sandbox, kind: str, happened: int) -> None:
    for form in ("r1", "r2"):
        client = connected(box, form)
        box.faults(kind, match={"path": "^/kaspi/"}, times=1, seconds=0.1)
        before = len(box.get("payments"))
        with client.http:
            try:
                answer = client.http.post(f"{form}/v01/qr/create", json={"DeviceToken": DEVICE, "Amount": 5})
                assert answer.status_code == 500 or "Just a moment" in answer.text
            except httpx.HTTPError:
                assert kind.startswith("timeout")
        assert len(box.get("payments")) == before + happened
    assert [call["provider"] for call in box.calls()] == ["kaspi", "kaspi"]


# --- The biller


@dataclass
class Shop:
    """A biller's address, which answers what a test says."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)
    got: list[tuple[dict[str, str], str, str | None]] = field(default_factory=list)


@pytest.fixture
def shop(box: Sandbox) -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = dict(parse_qsl(urlsplit(self.path).query))
            made.got.append((query, self.client_address[0], self.headers.get("X-Forwarded-For")))
            status, text = made.answers.pop(0) if made.answers else (200, json.dumps({"result": 0}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Tests need no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Shop(f"http://127.0.0.1:{server.server_address[1]}/kaspi/biller/secret")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box.post("settings", {"kaspi": {"biller_url": made.url}})
    yield made
    box.post("settings", {"kaspi": {"biller_url": ""}})
    server.shutdown()
    server.server_close()


@pytest.fixture
def bill(box: Sandbox) -> dict[str, Any]:
    """What a shop's form made: 9,000 tenge."""
    form = {"TranId": "ORD-1-1", "OrderId": "ORD-1", "Amount": "900000", "Service": "Kassa"}
    page = requests.post(
        f"{box.base_url}/kaspi/online", data=form | {"returnUrl": "http://localhost/back"}, timeout=10
    )
    assert page.ok and "9,000 ₸" in page.text
    (made,) = box.get("payments")
    found: dict[str, Any] = made
    return found


def test_a_bill_is_asked_about_and_paid(box: Sandbox, shop: Shop, bill: dict[str, Any]) -> None:
    paid = box.do(bill["id"], "pay")
    assert (paid["status"], paid["kind"], paid["success_url"]) == ("paid", "biller", "http://localhost/back")
    (check, sender, forwarded), (pay, _, _) = shop.got
    assert (check["command"], pay["command"]) == ("check", "pay")
    assert (check["account"], check["sum"], check["txn_id"]) == ("ORD-1", "9000.00", pay["txn_id"])
    assert len(pay["txn_date"]) == 14 and (sender, forwarded) == ("127.0.0.1", None)
    # The same again is the same call, and another sum is only what the caller says.
    box.do(bill["id"], "pay", txn_id=paid["txn_id"], check=False)
    assert shop.got[2][0]["txn_id"] == paid["txn_id"]
    box.do(bill["id"], "pay", txn_id="77", amount_minor=100, check_minor=200)
    assert [(query["command"], query["sum"]) for query, _, _ in shop.got[3:]] == [
        ("check", "2.00"),
        ("pay", "1.00"),
    ]


def test_a_bill_that_the_shop_refuses_is_not_paid(box: Sandbox, shop: Shop, bill: dict[str, Any]) -> None:
    shop.answers += [(200, json.dumps({"result": 1})), (404, "")]
    assert box.do(bill["id"], "pay")["status"] == "open"
    assert box.do(bill["id"], "check")["calls"][0]["status"] == 404
    assert [query["command"] for query, _, _ in shop.got] == ["check", "check"]
    page = requests.post(bill["hosted_url"], data={"do": "pay"}, timeout=10)
    assert "Payment successful" in page.text and "Back to the shop" in page.text


def test_calls_come_from_where_they_are_told_to(box: Sandbox, shop: Shop, bill: dict[str, Any]) -> None:
    box.do(bill["id"], "check", **{"from": "127.0.0.9"})
    box.do(bill["id"], "check", **{"from": "194.187.247.152"})
    assert [(sender, forwarded) for _, sender, forwarded in shop.got] == [
        ("127.0.0.9", None),
        ("127.0.0.1", "194.187.247.152"),
    ]


def test_without_an_address_nothing_is_called(box: Sandbox, bill: dict[str, Any]) -> None:
    answer = requests.post(f"{box.base_url}/control/payments/{bill['id']}", json={"do": "pay"}, timeout=10)
    assert answer.status_code == 409 and "biller_url" in answer.json()["error"]
    # Whoever presses the page's button reads the same.
    assert "Set the biller’s address first" in requests.post(bill["hosted_url"], timeout=10).text
    assert requests.post(f"{box.base_url}/kaspi/online/biller-9", timeout=10).status_code == 404
    assert requests.post(f"{box.base_url}/kaspi/online", data={"Amount": "5"}, timeout=9).status_code == 400
