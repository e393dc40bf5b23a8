"""The settings: environment variables read once into one frozen `Settings`.

`load()` refuses what is missing or contradictory with a `ConfigError` in words for the operator. The
running settings are asked for with `get()`; docs/operating.md lists every variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from redis.connection import parse_url as parse_redis_url
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

import backup_settings
import kaspi_modes
import secret_keys
from variables import LARGEST_AMOUNT as LARGEST_AMOUNT
from variables import TYPED_AMOUNT as TYPED_AMOUNT
from variables import ConfigError as ConfigError
from variables import Reader
from variables import is_timezone as is_timezone
from variables import known_currencies as known_currencies

ROOT = Path(__file__).resolve().parent
# The sandbox's own keys: public, and therefore never good enough for production.
SANDBOX_MARK = "kassa_sandbox"
# A Checkout Session is asked to live so much longer than its order is kept: see domain/providers/stripe.py.
STRIPE_OUTLIVES_MINUTES = 60
# Stripe ends every session after a day, by its own clock: ten minutes are left for ours to be wrong.
LONGEST_STRIPE_HOLD_MINUTES = 24 * 60 - STRIPE_OUTLIVES_MINUTES - 10
# A sweep is ended after 290 seconds (worker.JOB_TIMEOUT), and has mail to deliver after its own time.
LONGEST_SWEEP_SECONDS = 250
_STRIPE_KEY = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]+")
_STRIPE_PUBLISHABLE = re.compile(r"pk_(test|live)_[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Settings(backup_settings.Backups, secret_keys.SecretKeys):
    """Everything that differs between one Kassa and another. Secrets are left out of its repr."""

    development: bool
    home: Path
    secret_key: str = field(repr=False)
    # Keys of before: what they have sealed still holds, or proves nothing any more.
    secret_keys_rotated: tuple[str, ...] = field(repr=False)
    secret_keys_revoked: tuple[str, ...] = field(repr=False)
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    # Whether the certificate of a rediss:// server is looked at.
    redis_tls_verify: bool
    public_url: str
    site_name: str
    support_email: str
    alert_email: str
    admin_email: str
    logo_url: str
    currency: str
    timezone: str
    # Stripe
    stripe_secret_key: str = field(repr=False)
    stripe_publishable_key: str
    stripe_webhook_secret: str = field(repr=False)
    stripe_api_base: str
    stripe_rate_per_second: int
    stripe_session_minutes: int
    # Where Stripe's page is, if the account has a domain of its own for it.
    stripe_checkout_domain: str
    # What Apple's file of this host says, where a provider asks for one.
    apple_pay_domain_association: str
    # SumUp: the platform's own account, and the app that organisers connect theirs to
    sumup_api_key: str = field(repr=False)
    sumup_merchant_code: str
    sumup_client_id: str
    sumup_client_secret: str = field(repr=False)
    sumup_webhook_secret: str = field(repr=False)
    sumup_api_base: str
    sumup_rate_per_second: int
    sumup_scopes: str
    sumup_house_account: bool
    sumup_test_account: bool
    token_keys: tuple[str, ...] = field(repr=False)
    # Kaspi: by hand, by one form of its QR API, or by its biller calls; docs/kaspi.md tells them apart
    kaspi_mode: str
    kaspi_api_base: str
    kaspi_api_key: str = field(repr=False)
    # The client certificate of r2 and r3: a path, or the PFX file in base64.
    kaspi_pfx: str = field(repr=False)
    kaspi_pfx_password: str = field(repr=False)
    kaspi_ca: str = field(repr=False)
    kaspi_bin: str
    kaspi_trade_point: str
    kaspi_device_id: str
    kaspi_device_token: str = field(repr=False)
    kaspi_proxy_url: str = field(repr=False)
    kaspi_rate_per_second: int
    # Which of its two calls makes a payment: `link` opens the app on a phone, too; `qr` is for scanning only.
    kaspi_create: str
    # How long an order is kept, how long a code lives where Kaspi does not say, and the wait afterwards.
    kaspi_session_minutes: int
    kaspi_qr_minutes: int
    kaspi_grace_minutes: int
    # Kaspi's words that we do not know, with our states.
    kaspi_status_map: tuple[tuple[str, str], ...]
    kaspi_allow_tiyn: bool
    kaspi_test: bool
    # Kaspi by hand: what buyers read, for how long an order is kept, and from which sum on two people confirm
    kaspi_manual_text: str
    kaspi_manual_minutes: int
    kaspi_two_people_above_minor: int
    # Kaspi's biller calls: where it calls us and from where, as which service, and what it is believed
    kaspi_biller_path: str = field(repr=False)
    kaspi_biller_ips: tuple[str, ...]
    kaspi_biller_service: str
    kaspi_biller_url: str
    kaspi_biller_minutes: int
    kaspi_biller_believed_minor: int
    # Organisers
    house_account_for_organisers: bool
    # In whole and decimal units of its currency, as it is set; orders/publishing.py has it in minor units.
    listing_fee: Decimal
    listing_fee_currency: str
    # Who answers the telephone: what they may send back of an order, and in a day, in units of CURRENCY
    desk_refund_per_order: Decimal
    desk_refund_per_day: Decimal
    # Tournaments: from which age nobody has to agree for an athlete, and how long a weight is kept afterwards
    age_of_majority: int
    weight_kept_days: int
    # How long is kept what no order and no dispute needs
    rings_kept_days: int
    sweeps_kept_days: int
    links_kept_days: int
    heartbeats_kept_days: int
    mails_kept_days: int
    disputable_days: int
    # Personal data: how long names stay in the books, and how buyers of past events were reached; 0 for ever
    books_kept_years: int
    buyers_kept_months: int
    # Mail
    mail_server: str
    mail_port: int
    mail_username: str
    mail_password: str = field(repr=False)
    mail_use_tls: bool
    mail_use_ssl: bool
    mail_sender: str
    mail_api_key: str = field(repr=False)
    mail_api_base: str
    # Wallet
    wallet_currency: str
    topup_amounts: tuple[int, ...]
    # The sweep
    sweep_interval: int
    sweep_budget: int
    sweep_cap: int
    max_poll_duration_minutes: int
    stuck_minutes: int
    late_money: str
    # From how many percent of a type's stock in unpaid orders a waiting line goes on by itself, where it may.
    waiting_line_share: int
    # The web process
    web_concurrency: int
    web_threads: int
    # Watching
    log_level: str
    log_file: str
    metrics_token: str = field(repr=False)
    limits: bool
    trusted_proxies: int
    # Whether browsers must use https for every host below PUBLIC_URL's, too.
    hsts_subdomains: bool
    second_factor_above: Decimal
    # Sites to which the API sends payers back, and whose scripts may call it.
    api_return_origins: tuple[str, ...]

    @property
    def production(self) -> bool:
        return not self.development

    @property
    def livemode(self) -> bool:
        """Whether payments move real money."""
        if self.stripe_secret_key:
            return "_live_" in self.stripe_secret_key
        if self.sumup_ready or self.sumup_connects:
            return not self.sumup_test_account
        return self.kaspi_livemode

    @property
    def stripe_ready(self) -> bool:
        return bool(self.stripe_secret_key)

    @property
    def sumup_ready(self) -> bool:
        """Whether the platform's own SumUp account can take money."""
        return bool(self.sumup_api_key and self.sumup_merchant_code)

    @property
    def sumup_connects(self) -> bool:
        """Whether organisers can connect SumUp accounts of their own."""
        return bool(self.sumup_client_id and self.sumup_client_secret)

    @property
    def kaspi_speaks(self) -> bool:
        """Whether a form of Kaspi's QR API lets us in."""
        proof = self.kaspi_api_key if self.kaspi_mode == "r1" else self.kaspi_pfx
        return self.kaspi_mode in kaspi_modes.QR_API and bool(proof)

    @property
    def kaspi_connects(self) -> bool:
        """Whether it can take a payment, for which this Kassa must be one of its devices."""
        return self.kaspi_speaks and bool(self.kaspi_device_token)

    @property
    def kaspi_ready(self) -> bool:
        """Whether Kaspi can take money, in whichever mode."""
        return self.kaspi_connects or self.kaspi_mode in ("manual", "biller")

    @property
    def kaspi_livemode(self) -> bool:
        """Whether payments through Kaspi move real money."""
        return self.kaspi_mode != "" and not self.kaspi_test

    @property
    def kaspi_account(self) -> str:
        """Whom Kaspi pays, as far as the settings name it."""
        return self.kaspi_bin or self.kaspi_trade_point or "kaspi"

    @property
    def mail_ready(self) -> bool:
        return bool(self.mail_server or self.mail_api_key)

    @property
    def sales_open(self) -> bool:
        """Whether anything that costs money may be sold: there is a provider, and mail to deliver by."""
        paid_by = (self.stripe_ready, self.sumup_ready, self.sumup_connects, self.kaspi_ready)
        return any(paid_by) and self.mail_ready

    @property
    def stripe_webhook_secrets(self) -> tuple[str, ...]:
        """One for each address that Stripe rings at."""
        return tuple(self.stripe_webhook_secret.replace(",", " ").split())

    @property
    def https(self) -> bool:
        return self.public_url.startswith("https://")

    def redis_tls(self, url: str) -> dict[str, Any]:
        """What a client of Redis at `url` is told about its certificate; the address itself may say more."""
        if not url.startswith("rediss://"):
            return {}
        if self.redis_tls_verify:
            return {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        return {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


_current: Settings | None = None


def get() -> Settings:
    """The settings in force. Loads them from the environment on first use."""
    global _current
    if _current is None:
        _current = load()
    return _current


def use(settings: Settings) -> None:
    """Put `settings` in force for this process."""
    global _current
    _current = settings


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from `environ`, or from the process environment with `.env` behind it.

    Raises ConfigError in words that name the variable.
    """
    if environ is None:
        dotenv = {k: v for k, v in dotenv_values(ROOT / ".env").items() if v is not None}
        environ = {**dotenv, **os.environ}
    read = Reader(environ)
    development = read.text("KASSA_ENV", "production") == "development"
    admin = read.address("ADMIN_EMAIL")
    support = read.address("SUPPORT_EMAIL") or admin or "support@example.org"
    settings = Settings(
        development=development,
        home=Path(read.text("KASSA_HOME", str(ROOT / ".kassa"))),
        secret_key=read.required("SECRET_KEY", "a long random text, the same for web, worker and clock"),
        secret_keys_rotated=tuple(read.text("SECRET_KEY_ROTATED", most=2000).split()),
        secret_keys_revoked=tuple(read.text("SECRET_KEY_REVOKED", most=2000).split()),
        database_url=_database_url(read.required("DATABASE_URL", "a postgresql:// address")),
        redis_url=_redis_url(read.required("REDIS_URL", "a redis:// or rediss:// address")),
        # Heroku's certificates are signed by nobody, so there is nothing to hold them against.
        redis_tls_verify=read.flag("REDIS_TLS_VERIFY", not read.text("DYNO")),
        public_url=_public_url(read, development, read.number("PORT", 8000, least=1, most=65535)),
        site_name=read.text("SITE_NAME", "Kassa", most=100),
        support_email=support,
        alert_email=read.address("PAYMENT_ALERT_EMAIL") or admin or support,
        admin_email=admin.lower(),
        logo_url=read.picture("LOGO_URL"),
        timezone=read.timezone("TIMEZONE", "UTC"),
        **_money(read),
        **_stripe(read),
        **_sumup(read, development),
        **_kaspi(read, development),
        **kaspi_modes.told(read),
        **_tournaments(read),
        **_kept(read),
        **backup_settings.told(read),
        **_mail(read, support),
        **_running(read, development),
    )
    _refuse_mixtures(settings)
    return settings


def _money(read: Reader) -> dict[str, Any]:
    """What is sold in which currency, and whose account takes it."""
    currency = read.currency("CURRENCY", "EUR")
    return {
        "currency": currency,
        "house_account_for_organisers": read.flag("HOUSE_ACCOUNT_FOR_ORGANISERS", False),
        "listing_fee": read.amount("LISTING_FEE", Decimal(0)),
        "listing_fee_currency": read.currency("LISTING_FEE_CURRENCY", currency),
        "desk_refund_per_order": read.amount("DESK_REFUND_PER_ORDER", Decimal(0)),
        "desk_refund_per_day": read.amount("DESK_REFUND_PER_DAY", Decimal(0)),
        "wallet_currency": read.currency("WALLET_CURRENCY", "AED"),
        "topup_amounts": read.numbers("WALLET_TOPUP_AMOUNTS", (10, 50, 100, 500)),
        "late_money": read.choice("LATE_MONEY", "person", ("person", "refund", "wallet")),
    }


def _stripe(read: Reader) -> dict[str, Any]:
    """Stripe: keys, and how it is asked."""
    return {
        "stripe_secret_key": read.text("STRIPE_SECRET_KEY"),
        "stripe_publishable_key": read.text("STRIPE_PUBLISHABLE_KEY")
        or read.text("NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY"),
        "stripe_webhook_secret": read.text("STRIPE_WEBHOOK_SECRET"),
        "stripe_api_base": read.url("STRIPE_API_BASE"),
        "stripe_rate_per_second": read.number(
            "STRIPE_RATE_PER_SECOND", _stripe_rate(read), least=1, most=10_000
        ),
        "stripe_session_minutes": read.number(
            "STRIPE_SESSION_MINUTES", 31, least=31, most=LONGEST_STRIPE_HOLD_MINUTES
        ),
        "stripe_checkout_domain": read.domain("STRIPE_CHECKOUT_DOMAIN"),
        "apple_pay_domain_association": read.text("APPLE_PAY_DOMAIN_ASSOCIATION"),
    }


def _sumup(read: Reader, development: bool) -> dict[str, Any]:
    """SumUp: keys, the app that organisers connect by, and how their tokens are kept."""
    return {
        "sumup_api_key": read.text("SUMUP_API_KEY"),
        "sumup_merchant_code": read.text("SUMUP_MERCHANT_CODE"),
        "sumup_client_id": read.text("SUMUP_CLIENT_ID"),
        "sumup_client_secret": read.text("SUMUP_CLIENT_SECRET"),
        "sumup_webhook_secret": read.text("SUMUP_WEBHOOK_SECRET"),
        "sumup_api_base": read.url("SUMUP_API_BASE"),
        "sumup_rate_per_second": read.number(
            "SUMUP_RATE_PER_SECOND", _sumup_rate(read), least=1, most=10_000
        ),
        "sumup_scopes": read.text(
            "SUMUP_SCOPES", "payments transactions.history user.app-settings user.profile_readonly"
        ),
        "sumup_house_account": read.flag("SUMUP_HOUSE_ACCOUNT", False),
        "sumup_test_account": read.flag("SUMUP_TEST_ACCOUNT", development),
        "token_keys": tuple(read.text("TOKEN_KEYS").replace(",", " ").split()),
    }


def _kaspi(read: Reader, development: bool) -> dict[str, Any]:
    """Kaspi: the mode, what proves who we are, and what its facts leave open."""
    return {
        "kaspi_mode": read.choice("KASPI_MODE", "", ("", *kaspi_modes.MODES)),
        "kaspi_api_base": read.url("KASPI_API_BASE"),
        "kaspi_api_key": read.text("KASPI_API_KEY"),
        "kaspi_pfx": read.file("KASPI_PFX"),
        # A second secret beside the key: what opens the certificate, where that has no password of its own.
        "kaspi_pfx_password": read.text("KASPI_PFX_PASSWORD") or read.text("KASPI_API_SECRET"),
        "kaspi_ca": read.file("KASPI_CA"),
        "kaspi_bin": read.text("KASPI_BIN"),
        "kaspi_trade_point": read.text("KASPI_TRADE_POINT", most=80),
        "kaspi_device_id": read.text("KASPI_DEVICE_ID", most=80),
        "kaspi_device_token": read.text("KASPI_DEVICE_TOKEN", most=200),
        "kaspi_proxy_url": read.proxy("KASPI_PROXY_URL"),
        "kaspi_rate_per_second": read.number(
            "KASPI_RATE_PER_SECOND", _kaspi_rate(read), least=1, most=10_000
        ),
        "kaspi_create": read.choice("KASPI_CREATE", "link", ("link", "qr")),
        "kaspi_session_minutes": read.number("KASPI_SESSION_MINUTES", 15, least=5, most=24 * 60),
        "kaspi_qr_minutes": read.number("KASPI_QR_MINUTES", 3, least=1, most=60),
        "kaspi_grace_minutes": read.number("KASPI_GRACE_MINUTES", 3, least=1, most=24 * 60),
        "kaspi_status_map": read.pairs("KASPI_STATUS_MAP", kaspi_modes.STATES),
        "kaspi_allow_tiyn": read.flag("KASPI_ALLOW_TIYN", False),
        "kaspi_test": read.flag("KASPI_TEST", development),
    }


def _tournaments(read: Reader) -> dict[str, Any]:
    """Athletes: who is under age, and what is forgotten when."""
    return {
        "age_of_majority": read.number("AGE_OF_MAJORITY", 18, least=1, most=30),
        "weight_kept_days": read.number("WEIGHT_KEPT_DAYS", 30, least=1, most=3650),
        "books_kept_years": read.number("BOOKS_KEPT_YEARS", 10, least=1, most=50),
        "buyers_kept_months": read.number("BUYERS_KEPT_MONTHS", 36, most=600),
    }


def _kept(read: Reader) -> dict[str, Any]:
    """In days: how long rows are kept that only tell of the past."""
    return {
        # A provider rings again for a month about what was answered with an error: it must still be known.
        "rings_kept_days": read.number("RINGS_KEPT_DAYS", 90, least=35, most=36500),
        "sweeps_kept_days": read.number("SWEEPS_KEPT_DAYS", 90, least=7, most=36500),
        "links_kept_days": read.number("LINKS_KEPT_DAYS", 30, least=1, most=36500),
        "heartbeats_kept_days": read.number("HEARTBEATS_KEPT_DAYS", 30, least=1, most=36500),
        "mails_kept_days": read.number("MAILS_KEPT_DAYS", 730, least=30, most=36500),
        "disputable_days": read.number("DISPUTABLE_DAYS", 540, least=120, most=36500),
    }


def _mail(read: Reader, support: str) -> dict[str, Any]:
    """How mail leaves."""
    return {
        "mail_server": read.host("MAIL_SERVER"),
        "mail_port": read.number("MAIL_PORT", 587, least=1, most=65535),
        "mail_username": read.text("MAIL_USERNAME"),
        "mail_password": read.text("MAIL_PASSWORD"),
        "mail_use_tls": read.flag("MAIL_USE_TLS", False),
        "mail_use_ssl": read.flag("MAIL_USE_SSL", False),
        "mail_sender": read.sender("MAIL_SENDER") or read.sender("MAIL_DEFAULT_SENDER") or support,
        "mail_api_key": read.text("MAIL_API_KEY"),
        "mail_api_base": read.url("MAIL_API_BASE", "https://api.resend.com"),
    }


def _running(read: Reader, development: bool) -> dict[str, Any]:
    """Sweeps, processes, logs and limits."""
    return {
        "sweep_interval": read.number("SWEEP_INTERVAL_SECONDS", 300, least=1, most=3600),
        "sweep_budget": read.number("SWEEP_BUDGET_SECONDS", 240, least=1, most=LONGEST_SWEEP_SECONDS),
        "sweep_cap": read.number("SWEEP_MAX_PAYMENTS", 0),
        "max_poll_duration_minutes": read.number("MAX_POLL_DURATION_MINUTES", 120, least=1, most=7 * 24 * 60),
        "waiting_line_share": read.number("WAITING_LINE_SHARE", 50, least=1, most=100),
        "stuck_minutes": read.number("STUCK_MINUTES", 30, least=1, most=7 * 24 * 60),
        "web_concurrency": read.number("WEB_CONCURRENCY", 2, least=1, most=128),
        "web_threads": read.number("WEB_THREADS", 4, least=1, most=256),
        "log_level": read.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
        "log_file": read.text("LOG_FILE"),
        "metrics_token": read.text("METRICS_TOKEN"),
        "limits": not (read.choice("KASSA_LIMITS", "on", ("on", "off")) == "off" and development),
        "trusted_proxies": read.number("TRUSTED_PROXIES", 1, most=20),
        "hsts_subdomains": read.flag("HSTS_SUBDOMAINS", False),
        "second_factor_above": read.amount("SECOND_FACTOR_ABOVE", Decimal(100)),
        "api_return_origins": read.origins("API_RETURN_ORIGINS", development=development),
    }


def _refuse_mixtures(settings: Settings) -> None:
    """Refuse keys that do not belong together, or that do not belong in production."""
    secret, publishable = settings.stripe_secret_key, settings.stripe_publishable_key
    if secret and not _STRIPE_KEY.fullmatch(secret):
        raise ConfigError(
            "STRIPE_SECRET_KEY does not look like a secret key: "
            "it begins sk_test_, sk_live_, rk_test_ or rk_live_."
        )
    if publishable and not _STRIPE_PUBLISHABLE.fullmatch(publishable):
        raise ConfigError(
            "STRIPE_PUBLISHABLE_KEY does not look like a publishable key: it begins pk_test_ or pk_live_."
        )
    if not all(secret.startswith("whsec_") for secret in settings.stripe_webhook_secrets):
        raise ConfigError(
            "STRIPE_WEBHOOK_SECRET does not look like a webhook's secret, or several: each begins whsec_."
        )
    if secret and publishable and ("_live_" in publishable) != settings.livemode:
        raise ConfigError(
            "STRIPE_SECRET_KEY and STRIPE_PUBLISHABLE_KEY are of different modes: "
            "use two test keys or two live keys."
        )
    uses_sumup = settings.sumup_ready or settings.sumup_connects
    if secret and uses_sumup and settings.livemode is settings.sumup_test_account:
        raise ConfigError(
            "Stripe and SumUp are of different modes: set SUMUP_TEST_ACCOUNT=true beside Stripe's test "
            "keys, and remove it beside live ones."
        )
    others = bool(secret) or uses_sumup
    if others and settings.kaspi_ready and settings.livemode is settings.kaspi_test:
        raise ConfigError(
            "Kaspi and the other providers are of different modes: set KASPI_TEST=true beside test keys, and "
            "remove it beside live ones."
        )
    kaspi_modes.refuse_half(settings)
    if settings.sumup_api_key and not settings.sumup_merchant_code:
        raise ConfigError("SUMUP_API_KEY needs SUMUP_MERCHANT_CODE, the account that it belongs to.")
    if settings.sumup_house_account and not settings.sumup_ready:
        raise ConfigError("SUMUP_HOUSE_ACCOUNT needs an account: set SUMUP_API_KEY and SUMUP_MERCHANT_CODE.")
    if bool(settings.sumup_client_id) is not bool(settings.sumup_client_secret):
        raise ConfigError("SUMUP_CLIENT_ID and SUMUP_CLIENT_SECRET are of one app: set both, or neither.")
    if settings.mail_username and not settings.mail_password:
        raise ConfigError(
            "MAIL_USERNAME needs MAIL_PASSWORD: without it nobody can log in to the mail server."
        )
    if settings.mail_use_tls and settings.mail_use_ssl:
        raise ConfigError("Set MAIL_USE_TLS (port 587) or MAIL_USE_SSL (port 465), not both.")
    secret_keys.refuse_old(settings)
    if not settings.development:
        _refuse_in_production(settings)


def _refuse_in_production(settings: Settings) -> None:
    """Refuse what only the sandbox knows, and what is good enough for one machine alone."""
    marked = (
        *(settings.stripe_secret_key, settings.stripe_publishable_key, settings.stripe_webhook_secret),
        *(settings.sumup_api_key, settings.sumup_client_secret, settings.sumup_webhook_secret),
        *(settings.kaspi_api_key, settings.kaspi_pfx_password, settings.kaspi_device_token),
        settings.mail_api_key,
    )
    if any(SANDBOX_MARK in value for value in marked):
        raise ConfigError(
            "The sandbox's keys are for development only. "
            "Paste your own from dashboard.stripe.com > Developers and me.sumup.com > For developers; "
            "Kaspi's came with your contract."
        )
    for name, base in (("STRIPE", settings.stripe_api_base), ("SUMUP", settings.sumup_api_base)):
        if base:
            raise ConfigError(f"{name}_API_BASE is for development only; remove it.")
    kaspi_modes.refuse_this_machine(settings)
    if settings.mail_api_key and not settings.mail_api_base.startswith("https://"):
        raise ConfigError("MAIL_API_BASE must begin with https://: MAIL_API_KEY would travel in clear.")
    if len(settings.secret_key) < 16:
        raise ConfigError("SECRET_KEY is too short: use 32 or more random characters.")


def _kaspi_rate(read: Reader) -> int:
    """Kaspi's limits are not known, so few; the sandbox has none."""
    return 1000 if kaspi_modes.is_here(read.text("KASPI_API_BASE")) else 5


def _sumup_rate(read: Reader) -> int:
    """SumUp publishes no limits, so few; the sandbox has none."""
    return 1000 if read.text("SUMUP_API_BASE") else 5


def _stripe_rate(read: Reader) -> int:
    """Stripe's own limit of an account: 100 a second live, 25 in test mode. The sandbox has none."""
    if read.text("STRIPE_API_BASE"):
        return 1000
    return 100 if "_live_" in read.text("STRIPE_SECRET_KEY") else 25


def _public_url(read: Reader, development: bool, port: int) -> str:
    """PUBLIC_URL, else what Railway or Heroku say their domain is, else this machine."""
    url = read.text("PUBLIC_URL")
    if not url and read.text("RAILWAY_PUBLIC_DOMAIN"):
        url = f"https://{read.text('RAILWAY_PUBLIC_DOMAIN')}"
    if not url and read.text("HEROKU_APP_DEFAULT_DOMAIN_NAME"):
        url = f"https://{read.text('HEROKU_APP_DEFAULT_DOMAIN_NAME')}"
    url = (url or f"http://localhost:{port}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"PUBLIC_URL must begin with https:// (it is {url!r}).")
    if not re.fullmatch(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(:[0-9]{1,5})?", url):
        raise ConfigError(
            f"PUBLIC_URL must be https:// and a host, with nothing behind it (it is {url!r}): "
            "Kassa needs a host, or a subdomain, of its own."
        )
    named = re.search(r":([0-9]+)$", url)
    if named is not None and not 1 <= int(named[1]) <= 65535:
        raise ConfigError(f"PUBLIC_URL names a port that there is none of (it is {url!r}).")
    return url


def _database_url(url: str) -> str:
    """Heroku and Railway say postgres://; SQLAlchemy wants the driver named."""
    for prefix in ("postgres://", "postgresql://", "postgresql+psycopg://"):
        if url.startswith(prefix):
            with suppress(ArgumentError, ValueError):
                named = "postgresql+psycopg://" + url[len(prefix) :]
                make_url(named)
                return named
    raise ConfigError("DATABASE_URL must be a PostgreSQL address: postgresql://user:password@host/name.")


def _redis_url(url: str) -> str:
    """An address that Redis's own client can read. It may hold a password, so it is not repeated."""
    try:
        parse_redis_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError("REDIS_URL must be a redis:// or rediss:// address: redis://host:6379.") from error
    return url
