from __future__ import annotations
from flask import Flask
from tests.simulation import runs
from tests.support.sandbox import Sandbox
import time, os


def test_one(app: Flask, sandbox: Sandbox) -> None:
    t = time.time()
    c = runs.live(app, sandbox, int(os.environ.get("SEED", 1)), int(os.environ.get("LIVES", 50)))
    print(c.table())
    print("seconds", time.time() - t)
