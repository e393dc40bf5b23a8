"""`flask demo api`: a key, ids, and lines that a shell runs as they stand."""

from __future__ import annotations

import re
from dataclasses import replace

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
from domain.security import api_keys
from extensions import db
from models import Participant, User
from tests.support.sandbox import Sandbox


def printed(app: Flask) -> str:
    run = app.test_cli_runner().invoke(args=["demo", "api"])
    assert run.exit_code == 0, run.output
    return run.output


def call(client: FlaskClient, line: str, key: str) -> TestResponse:
    """What curl does with a line."""
    found = re.search(r'curl -s "\$KASSA(/[^"]+)"', line)
    assert found is not None, line
    headers = {"Authorization": f"Bearer {key}"}
    body = re.search(r"-d '(\{.*\})'", line)
    if body is None:
        return client.get(f"/api/v1{found[1]}", headers=headers)
    return client.post(f"/api/v1{found[1]}", data=body[1], headers=headers, content_type="application/json")


def test_every_line_does_what_it_says(app: Flask, client: FlaskClient, sandbox: Sandbox) -> None:
    told = printed(app)
    key = re.findall(r"^KEY=(\S+)$", told, re.M)[0]
    assert f"SANDBOX={sandbox.base_url}/control" in told
    lines = [line for line in told.splitlines() if line.startswith("curl") and "$KASSA" in line]
    statuses = []
    for line in lines:
        answer = call(client, line, key)
        assert answer.status_code in (200, 201), (line, answer.text)
        if "initiate" in line:
            sandbox.do(sandbox.get("payments", limit=1)[0]["id"], "pay")
        if "payments/status" in line:
            statuses.append(answer.get_json()["status"])
    # The nearly full category, and the one in tenge.
    assert statuses == ["COMPLETED", "COMPLETED"]


def test_again_it_is_another_key_and_the_same_entries(app: Flask, client: FlaskClient) -> None:
    first, second = printed(app), printed(app)
    entries = [re.findall(r"participant_[\w-]+", told) for told in (first, second)]
    assert entries[0] == entries[1] and db.session.query(Participant).count() == 6 + 2
    buyer = db.session.query(User).filter_by(email="buyer@example.org").one()
    assert len(api_keys.living(buyer)) == 1
    keys = [re.findall(r"^KEY=(\S+)$", told, re.M)[0] for told in (first, second)]
    answers = [call(client, 'curl -s "$KASSA/athletes"', key).status_code for key in keys]
    assert answers == [401, 200]


def test_production_has_none(app: Flask) -> None:
    config.use(replace(config.get(), development=False))
    run = app.test_cli_runner().invoke(args=["demo", "api"])
    assert run.exit_code == 1 and "development only" in run.output
