"""Everything the sandbox is made of, put together."""

from __future__ import annotations

import logging
import sqlite3
import threading

from flask import Flask, render_template

from sandbox import control, mail_pages, resend
from sandbox.calls import Calls
from sandbox.clock import Clock
from sandbox.edge import Edge
from sandbox.faults import Faults
from sandbox.kaspi import api as kaspi_api
from sandbox.kaspi import certificates
from sandbox.kaspi import hosted as kaspi_hosted
from sandbox.kaspi.dashboard import KaspiDashboard
from sandbox.kaspi.listener import Listener
from sandbox.kaspi.world import World as KaspiWorld
from sandbox.mail import Mailbox, smtp_server
from sandbox.settings import KASPI_PFX_PASSWORD, Settings
from sandbox.store import Store
from sandbox.stripe import api, browser, hosted
from sandbox.stripe.currencies import show
from sandbox.stripe.dashboard import StripeDashboard
from sandbox.stripe.world import World
from sandbox.sumup import api as sumup_api
from sandbox.sumup import hosted as sumup_hosted
from sandbox.sumup import oauth as sumup_oauth
from sandbox.sumup.access import Access
from sandbox.sumup.dashboard import SumupDashboard
from sandbox.sumup.world import World as SumupWorld
from sandbox.webhooks import Webhooks

TICK_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class Sandbox:
    """The parts and their threads. A further provider adds its blueprint and its dashboard here."""

    def __init__(self, settings: Settings) -> None:
        settings.home.mkdir(parents=True, exist_ok=True)
        self._stopping = threading.Event()
        self.store = Store(settings.home / "sandbox.db")
        clock = Clock(settings.home)
        self.faults = Faults()
        calls = Calls()
        mailbox = Mailbox(self.store, clock)
        self.webhooks = Webhooks(self.store, clock, self.faults, settings.webhook_url)
        self.world = World(self.store, clock, self.webhooks.ring)
        self.sumup = SumupWorld(self.store, clock, self.webhooks.notify)
        self.kaspi = KaspiWorld(self.store, clock)
        access = Access(self.store, clock)
        self.smtp = smtp_server(mailbox, self.faults, settings.smtp_port)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        stripe_api = api.StripeApi(self.world, self.webhooks, settings.public_url, self.faults)
        sumup = sumup_api.SumupApi(self.sumup, access, settings.public_url, self.faults)
        sumup_dashboard = SumupDashboard(self.sumup, access, settings.public_url)
        kaspi = kaspi_api.KaspiApi(self.kaspi, settings.public_url, self.faults)
        made = certificates.ensure(settings.home / "sandbox-kaspi", KASPI_PFX_PASSWORD)
        kaspi_dashboard = KaspiDashboard(self.kaspi, settings.public_url, made)
        mail_api = resend.Resend(self.store, clock, mailbox, self.faults)
        controlled = control.Controlled(
            settings=settings,
            store=self.store,
            clock=clock,
            faults=self.faults,
            calls=calls,
            webhooks=self.webhooks,
            mailbox=mailbox,
            dashboards=[StripeDashboard(self.world, settings.public_url), sumup_dashboard, kaspi_dashboard],
            sumup=sumup_dashboard,
            kaspi=kaspi_dashboard,
        )
        self.app = Flask(__name__)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]
        self.app.register_blueprint(
            api.blueprint(stripe_api, lambda refusal: Edge("stripe", calls, self.faults, refusal))
        )
        self.app.register_blueprint(
            sumup_api.blueprint(sumup, lambda refusal: Edge("sumup", calls, self.faults, refusal))
        )
        self.app.register_blueprint(sumup_hosted.blueprint(self.sumup))
        self.app.register_blueprint(
            sumup_oauth.blueprint(
                self.sumup, access, self.faults, lambda refusal: Edge("sumup", calls, self.faults, refusal)
            )
        )
        self.app.register_blueprint(
            kaspi_api.blueprint(kaspi, lambda refusal: Edge("kaspi", calls, self.faults, refusal))
        )
        self.app.register_blueprint(kaspi_hosted.blueprint(self.kaspi, kaspi_dashboard))
        self.app.register_blueprint(
            resend.blueprint(mail_api, lambda refusal: Edge("resend", calls, self.faults, refusal))
        )
        self.app.register_blueprint(hosted.blueprint(self.world))
        self.app.register_blueprint(browser.blueprint(self.world))
        self.app.register_blueprint(control.blueprint(controlled))
        self.app.register_blueprint(mail_pages.blueprint(mailbox))

        self.app.add_template_filter(lambda minor, currency: show(minor, currency.lower()), "money")

        @self.app.get("/")
        def index() -> str:
            return render_template("index.html", payments=controlled.payments(20), mails=mailbox.list(10))

        # The door by TLS has its port as soon as it is made, so that /control can tell where it is.
        self.second_door = Listener(self.app, made, settings.tls_port)
        kaspi_dashboard.tls_url = self.second_door.url

    def start(self) -> None:
        """Start what works besides the HTTP server. Raises OSError where the SMTP port is taken."""
        self.second_door.start()
        self.smtp.start()
        self.webhooks.start()
        self._ticker.start()

    def stop(self) -> None:
        self._stopping.set()
        self.faults.stop()
        self.second_door.stop()
        self.smtp.stop(no_assert=True)
        self.webhooks.stop()
        self._ticker.join(timeout=2)
        self.store.close()

    def _tick(self) -> None:
        """Let happen what time brings, a hundred things at a time so that requests come in between."""
        while not self._stopping.is_set():
            try:
                with self.store.transaction():
                    done = self.world.run_due(limit=100) + self.sumup.run_due(limit=100)
                    done += self.kaspi.run_due(limit=100)
            except sqlite3.Error:
                _LOG.exception("What was due could not be done")
                done = 0
            self._stopping.wait(0.01 if done else TICK_SECONDS)
