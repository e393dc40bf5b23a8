"""The mail catcher: by SMTP and by the mail API, as JSON and as pages, with its faults."""

from __future__ import annotations

import base64
import re
import smtplib
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

import pytest
import requests

from tests.support.sandbox import Sandbox

KEY = {"Authorization": "Bearer re_kassa_sandbox"}
PNG = b"\x89PNG\r\n\x1a\n picture"


def a_mail(to: str = "Zoë <zoe@example.org>") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Kassa <tickets@example.org>"
    mail["To"] = to
    mail["Subject"] = "Deine Karten für Öl & Brot"
    mail["Message-ID"] = "<order-1@example.org>"
    mail.set_content("Schöne Grüße\n")
    mail.add_alternative(
        '<p>Schöne <script>alert(1)</script><img src="cid:qr-1" alt="Code"></p>', subtype="html"
    )
    mail.get_payload()[1].add_related(PNG, "image", "png", cid="<qr-1>", filename="qr.png")  # type: ignore[union-attr, index]
    mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="tickets.pdf")
    return mail


def send(box: Sandbox, mail: EmailMessage, **login: str) -> None:
    with smtplib.SMTP("127.0.0.1", box.smtp_port, timeout=10) as smtp:
        if login:
            smtp.login(login["user"], login["password"])
        smtp.send_message(mail)


def test_what_arrives(box: Sandbox) -> None:
    send(box, a_mail("zoe@example.org, Max <max@example.org>"))
    [mail] = box.mail()
    assert (mail["to"], mail["recipients"]) == (
        "zoe@example.org, max@example.org",
        ["zoe@example.org", "max@example.org"],
    )
    assert (mail["subject"], mail["message_id"]) == ("Deine Karten für Öl & Brot", "<order-1@example.org>")
    assert mail["text"] == "Schöne Grüße\n" and "Schöne" in mail["html"]
    files = [(file["name"], file["type"], file["size"]) for file in mail["attachments"]]
    assert files == [("qr.png", "image/png", len(PNG)), ("tickets.pdf", "application/pdf", 8)]
    assert box.get(f"mail/{mail['id']}") == mail
    raw = requests.get(f"{box.base_url}/control/mail/{mail['id']}?raw=1", timeout=10).content
    assert BytesParser(policy=default).parsebytes(raw)["Message-ID"] == "<order-1@example.org>"


def test_newest_first_and_by_recipient(box: Sandbox) -> None:
    for name in ("a", "b", "a"):
        send(box, a_mail(f"{name}@example.org"))
    assert [mail["to"][0] for mail in box.mail()] == ["a", "b", "a"]
    assert len(box.mail("A@example.org")) == 2
    assert len(box.get("mail", limit=1)) == 1
    assert requests.get(f"{box.base_url}/control/mail/none", timeout=10).status_code == 404


def test_any_login_and_raw_utf8(box: Sandbox) -> None:
    send(box, a_mail(), user="any", password="thing")
    with smtplib.SMTP("127.0.0.1", box.smtp_port, timeout=10) as smtp:
        raw = "Subject: Grüße\r\nTo: zoë@example.org\r\n\r\nBrötchen\r\n".encode()
        smtp.sendmail("a@example.org", ["zoë@example.org"], raw, ["SMTPUTF8", "BODY=8BITMIME"])
    assert box.mail()[0]["recipients"] == ["zoë@example.org"]
    assert "Brötchen" in box.mail()[0]["text"]


def test_refused(box: Sandbox) -> None:
    box.faults("smtp_refuse", times=1)
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        send(box, a_mail())
    assert refused.value.smtp_code == 451
    assert box.mail() == []
    send(box, a_mail())
    assert len(box.mail()) == 1


def test_dropped_after_data(box: Sandbox) -> None:
    box.faults("smtp_drop_after_data", times=1)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        send(box, a_mail())
    assert len(box.mail()) == 1
    send(box, a_mail())
    assert len({mail["message_id"] for mail in box.mail()}) == 1 and len(box.mail()) == 2


def test_pages(box: Sandbox) -> None:
    send(box, a_mail())
    [mail] = box.mail()
    listed = requests.get(f"{box.base_url}/mail", timeout=10).text
    assert "Deine Karten für Öl &amp; Brot" in listed and mail["id"] in listed
    assert mail["id"] not in requests.get(f"{box.base_url}/mail?to=nobody", timeout=10).text
    page = requests.get(f"{box.base_url}/mail/{mail['id']}", timeout=10).text
    assert (
        re.search(r'<iframe [^>]*sandbox="allow-popups allow-popups-to-escape-sandbox"', page)
        and "Schöne Grüße" in page
    )
    html = requests.get(f"{box.base_url}/mail/{mail['id']}/html", timeout=10)
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in html.text
    assert "default-src 'none'" in html.headers["Content-Security-Policy"]
    pdf = requests.get(f"{box.base_url}/mail/{mail['id']}/part/1", timeout=10)
    assert pdf.content == b"%PDF-1.7" and "tickets.pdf" in pdf.headers["Content-Disposition"]
    assert (
        b"order-1@example.org" in requests.get(f"{box.base_url}/mail/{mail['id']}/source", timeout=10).content
    )
    for path in ("none", f"{mail['id']}/part/9"):
        assert requests.get(f"{box.base_url}/mail/{path}", timeout=10).status_code == 404


def resend(box: Sandbox, key: str = "", **changes: Any) -> requests.Response:
    body = {
        "from": "Kassa <tickets@example.org>",
        "to": ["zoe@example.org"],
        "subject": "Karten",
        "html": '<p>Hallo <img src="cid:qr-1"></p>',
        "text": "Hallo",
        "headers": {"Message-ID": "<order-2@example.org>", "X-Order": "2"},
        "attachments": [
            {"filename": "tickets.pdf", "content": base64.b64encode(b"%PDF-1.7").decode()},
            {
                "filename": "qr.png",
                "content": base64.b64encode(PNG).decode(),
                "content_type": "image/png",
                "content_id": "qr-1",
            },
        ],
        **changes,
    }
    headers = KEY | ({"Idempotency-Key": key} if key else {})
    sent = {name: value for name, value in body.items() if value is not None}
    return requests.post(f"{box.base_url}/resend/emails", json=sent, headers=headers, timeout=10)


def test_the_mail_api(box: Sandbox) -> None:
    answer = resend(box)
    assert answer.status_code == 200 and answer.json().keys() == {"id"}
    [mail] = box.mail("zoe@example.org")
    assert (mail["via"], mail["message_id"], mail["text"].strip()) == (
        "resend",
        "<order-2@example.org>",
        "Hallo",
    )
    assert {(file["name"], file["content_id"]) for file in mail["attachments"]} == {
        ("tickets.pdf", None),
        ("qr.png", "qr-1"),
    }
    assert "data:image/png" in requests.get(f"{box.base_url}/mail/{mail['id']}/html", timeout=10).text


def test_the_mail_api_sends_once_a_key(box: Sandbox) -> None:
    first, second = resend(box, "order:2:tickets"), resend(box, "order:2:tickets")
    assert first.json() == second.json() and len(box.mail()) == 1
    other = resend(box, "order:2:tickets", subject="Other")
    assert (other.status_code, other.json()["name"]) == (409, "invalid_idempotent_request")
    assert resend(box, "k" * 257).json()["name"] == "invalid_idempotency_key"
    box.faults("http_500", after=True, times=1)
    assert resend(box, "order:3:tickets").status_code == 500
    assert resend(box, "order:3:tickets").status_code == 200
    assert len(box.mail()) == 2


@pytest.mark.parametrize(
    ("changes", "status", "name"),
    [
        ({"to": None}, 422, "missing_required_field"),
        ({"from": "nobody"}, 422, "validation_error"),
        ({"to": ["zoe"]}, 422, "validation_error"),
        ({"html": None, "text": None}, 422, "missing_required_field"),
        ({"colour": "red"}, 422, "validation_error"),
        ({"headers": {"X": 1}}, 422, "validation_error"),
        ({"headers": {"X": "a\nBcc: b@example.org"}}, 422, "validation_error"),
        ({"attachments": [{"filename": "a.pdf", "content": "!"}]}, 422, "invalid_attachment"),
        ({"attachments": [{"filename": "a.pdf"}]}, 422, "invalid_attachment"),
    ],
)
def test_what_the_mail_api_refuses(box: Sandbox, changes: dict[str, Any], status: int, name: str) -> None:
    answer = resend(box, **changes)
    assert (answer.status_code, answer.json()["name"]) == (status, name)
    assert answer.json()["statusCode"] == status and answer.json()["message"]
    assert box.mail() == []


def test_the_mail_api_wants_its_key(box: Sandbox) -> None:
    url = f"{box.base_url}/resend/emails"
    assert requests.post(url, json={}, timeout=10).json()["name"] == "missing_api_key"
    wrong = requests.post(url, json={}, headers={"Authorization": "Bearer re_other"}, timeout=10)
    assert (wrong.status_code, wrong.json()["name"]) == (403, "invalid_api_key")
    box.faults("http_429", match={"path": "^/resend"})
    assert resend(box).json() == {
        "statusCode": 429,
        "name": "rate_limit_exceeded",
        "message": "Too many requests. You can only make 5 requests per second.",
    }
