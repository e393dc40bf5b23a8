"""The settings: what is refused, in which words, and what is made of the platforms' own variables."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import config
from config import ConfigError, Settings
from domain import addresses, clock, money
from domain.providers import registry

LEAST = {
    "SECRET_KEY": "a-long-enough-secret-key",
    "DATABASE_URL": "postgresql://kassa:pw@db.example.org/kassa",
    "REDIS_URL": "redis://redis.example.org:6379",
}


def load(**variables: str) -> Settings:
    return config.load({**LEAST, **variables})


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(**variables)
    return str(refused.value)


def test_three_variables_are_enough() -> None:
    settings = load()
    assert settings.production and not settings.development
    assert not settings.stripe_ready and not settings.mail_ready and not settings.sales_open
    assert settings.limits and not settings.livemode


@pytest.mark.parametrize("name", sorted(LEAST))
@pytest.mark.parametrize("value", ["", "   "])
def test_without_one_of_them_it_does_not_start(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"{name} is not set.")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SECRET_KEY": "short"}, "SECRET_KEY is too short"),
        ({"DATABASE_URL": "sqlite:///kassa.db"}, "DATABASE_URL must be a PostgreSQL address"),
        ({"DATABASE_URL": "mysql://h/n"}, "DATABASE_URL must be a PostgreSQL address"),
        ({"STRIPE_SECRET_KEY": "pk_test_123"}, "STRIPE_SECRET_KEY does not look like a secret key"),
        ({"STRIPE_SECRET_KEY": "whsec_123"}, "STRIPE_SECRET_KEY does not look like a secret key"),
        (
            {"STRIPE_SECRET_KEY": "sk_live_1", "STRIPE_PUBLISHABLE_KEY": "pk_test_1"},
            "two test keys or two live keys",
        ),
        (
            {"STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_PUBLISHABLE_KEY": "pk_live_1"},
            "two test keys or two live keys",
        ),
        (
            {"STRIPE_SECRET_KEY": "rk_live_1", "NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY": "pk_test_1"},
            "two test keys or two live keys",
        ),
        ({"STRIPE_SECRET_KEY": "sk_test_kassa_sandbox"}, "The sandbox's keys are for development only"),
        ({"STRIPE_PUBLISHABLE_KEY": "pk_test_kassa_sandbox"}, "The sandbox's keys are for development only"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_kassa_sandbox"}, "The sandbox's keys are for development only"),
        ({"STRIPE_API_BASE": "http://127.0.0.1:9000/stripe"}, "STRIPE_API_BASE is for development only"),
        ({"MAIL_USE_TLS": "true", "MAIL_USE_SSL": "true"}, "not both"),
        ({"MAIL_USE_TLS": "perhaps"}, "MAIL_USE_TLS must be true or false"),
        ({"MAIL_PORT": "smtp"}, "MAIL_PORT must be a whole number"),
        ({"PORT": "80a"}, "PORT must be a whole number"),
        ({"SWEEP_INTERVAL_SECONDS": "0"}, "SWEEP_INTERVAL_SECONDS must be a whole number, 1 or more"),
        ({"SWEEP_INTERVAL_SECONDS": "-5"}, "SWEEP_INTERVAL_SECONDS must be a whole number"),
        ({"SWEEP_INTERVAL_SECONDS": "5.5"}, "SWEEP_INTERVAL_SECONDS must be a whole number"),
        ({"SWEEP_INTERVAL_SECONDS": "٣٠٠"}, "SWEEP_INTERVAL_SECONDS must be a whole number"),
        ({"STRIPE_CHECKOUT_DOMAIN": "pay example"}, "STRIPE_CHECKOUT_DOMAIN must be a domain such as"),
        ({"STRIPE_CHECKOUT_DOMAIN": "pay.example.org; x"}, "STRIPE_CHECKOUT_DOMAIN must be a domain"),
        ({"STRIPE_SESSION_MINUTES": "30"}, "STRIPE_SESSION_MINUTES must be a whole number, 31 or more"),
        ({"STRIPE_RATE_PER_SECOND": "0"}, "STRIPE_RATE_PER_SECOND must be a whole number, 1 or more"),
        ({"WALLET_TOPUP_AMOUNTS": "10,fifty"}, "WALLET_TOPUP_AMOUNTS must be whole numbers"),
        ({"WALLET_TOPUP_AMOUNTS": "10,,50"}, "WALLET_TOPUP_AMOUNTS must be whole numbers"),
        ({"WALLET_TOPUP_AMOUNTS": "0"}, "WALLET_TOPUP_AMOUNTS must be whole numbers above zero"),
        ({"CURRENCY": "euro"}, "CURRENCY must be a currency code of three letters"),
        ({"CURRENCY": "XXX"}, "CURRENCY must be a currency that people pay with"),
        ({"WALLET_CURRENCY": "A1D"}, "WALLET_CURRENCY must be a currency code of three letters"),
        ({"TIMEZONE": "Jersey"}, "TIMEZONE must be a time zone"),
        ({"TIMEZONE": "../../etc/passwd"}, "TIMEZONE must be a time zone"),
        ({"LATE_MONEY": "keep"}, "LATE_MONEY must be one of person, refund, wallet"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR"),
        ({"PUBLIC_URL": "tickets.example.org"}, "PUBLIC_URL must begin with https://"),
        ({"PUBLIC_URL": "https://example.org/shop"}, "PUBLIC_URL must be https:// and a host"),
        ({"PUBLIC_URL": "https://me@example.org"}, "PUBLIC_URL must be https:// and a host"),
        ({"PUBLIC_URL": "https://"}, "PUBLIC_URL must"),
        ({"PUBLIC_URL": "javascript:alert(1)"}, "PUBLIC_URL must begin with https://"),
        ({"PUBLIC_URL": "https://example.org:99999"}, "PUBLIC_URL names a port that there is none of"),
        ({"STRIPE_SESSION_MINUTES": "2000"}, "STRIPE_SESSION_MINUTES must be 1370 or less"),
        ({"STRIPE_SESSION_MINUTES": "-31"}, "STRIPE_SESSION_MINUTES must be a whole number"),
        ({"STRIPE_SESSION_MINUTES": "9" * 5000}, "STRIPE_SESSION_MINUTES must be a whole number"),
        ({"PORT": "0"}, "PORT must be a whole number, 1 or more"),
        ({"PORT": "70000"}, "PORT must be 65535 or less"),
        ({"MAIL_PORT": "0"}, "MAIL_PORT must be a whole number, 1 or more"),
        ({"MAIL_PORT": "65536"}, "MAIL_PORT must be 65535 or less"),
        ({"MAIL_SERVER": "smtp://mail.example.org"}, "MAIL_SERVER must be a host"),
        ({"MAIL_SERVER": "mail.example.org:587"}, "MAIL_SERVER must be a host"),
        ({"MAIL_USERNAME": "kassa"}, "MAIL_USERNAME needs MAIL_PASSWORD"),
        ({"MAIL_SENDER": "Box office"}, "MAIL_SENDER must be a mail address"),
        ({"MAIL_SENDER": "Box office <box@>"}, "MAIL_SENDER must be a mail address"),
        ({"MAIL_DEFAULT_SENDER": "box"}, "MAIL_DEFAULT_SENDER must be a mail address"),
        ({"MAIL_API_BASE": "api.resend.com"}, "MAIL_API_BASE must begin with https://"),
        ({"MAIL_API_BASE": "http://api.resend.com", "MAIL_API_KEY": "re_1"}, "would travel in clear"),
        ({"SUPPORT_EMAIL": "help"}, "SUPPORT_EMAIL must be one mail address"),
        ({"SUPPORT_EMAIL": "a@example.org, b@example.org"}, "SUPPORT_EMAIL must be one mail address"),
        ({"ADMIN_EMAIL": "boss@localhost@x"}, "ADMIN_EMAIL must be one mail address"),
        ({"PAYMENT_ALERT_EMAIL": "alerts example.org"}, "PAYMENT_ALERT_EMAIL must be one mail address"),
        ({"SITE_NAME": "Kassa\nBcc: all@example.org"}, "SITE_NAME must be one line of text"),
        ({"SITE_NAME": "K" * 101}, "SITE_NAME is too long"),
        ({"LOGO_URL": "logo.png"}, "LOGO_URL must begin with https:// or /static/"),
        ({"STRIPE_SECRET_KEY": "sk_test_"}, "STRIPE_SECRET_KEY does not look like a secret key"),
        ({"STRIPE_PUBLISHABLE_KEY": "sk_live_123"}, "STRIPE_PUBLISHABLE_KEY does not look like"),
        ({"STRIPE_WEBHOOK_SECRET": "we_123"}, "STRIPE_WEBHOOK_SECRET does not look like"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_1,we_123"}, "STRIPE_WEBHOOK_SECRET does not look like"),
        ({"STRIPE_RATE_PER_SECOND": "1000000"}, "STRIPE_RATE_PER_SECOND must be 10000 or less"),
        ({"SUMUP_CLIENT_ID": "cc_1"}, "SUMUP_CLIENT_ID and SUMUP_CLIENT_SECRET are of one app"),
        ({"SUMUP_CLIENT_SECRET": "cc_sk_1"}, "SUMUP_CLIENT_ID and SUMUP_CLIENT_SECRET are of one app"),
        ({"SUMUP_HOUSE_ACCOUNT": "true"}, "SUMUP_HOUSE_ACCOUNT needs an account"),
        ({"KASPI_MODE": "qr"}, "KASPI_MODE must be one of "),
        ({"KASPI_MODE": "r1"}, "KASPI_MODE=r1 needs KASPI_API_KEY"),
        ({"KASPI_MODE": "r2"}, "KASPI_MODE=r2 needs KASPI_PFX"),
        ({"KASPI_MODE": "r3", "KASPI_PFX": "/x.pfx"}, "KASPI_MODE=r3 needs KASPI_BIN"),
        ({"KASPI_BIN": "12345"}, "KASPI_BIN must be the twelve digits"),
        ({"KASPI_STATUS_MAP": "Gone"}, "KASPI_STATUS_MAP must be words with one of open, "),
        ({"KASPI_STATUS_MAP": "Gone=lost"}, "KASPI_STATUS_MAP must be words with one of open, "),
        ({"KASPI_PROXY_URL": "proxy:3128"}, "KASPI_PROXY_URL must be http:// or https://"),
        ({"KASPI_PROXY_URL": "http://kassa:hunter2@proxy:99999"}, "KASPI_PROXY_URL must name a host, and"),
        ({"KASPI_API_BASE": "https://qrapi.example:port"}, "KASPI_API_BASE must name a host, and behind it"),
        ({"STRIPE_API_BASE": "https://:443"}, "STRIPE_API_BASE must name a host, and behind it"),
        ({"KASPI_PFX": "MIIK\nпароль"}, "KASPI_PFX must be a path, or a file in base64"),
        ({"KASPI_SESSION_MINUTES": "4"}, "KASPI_SESSION_MINUTES must be a whole number, 5 or more"),
        ({"KASPI_CREATE": "both"}, "KASPI_CREATE must be one of link, qr"),
        ({"KASPI_API_BASE": "http://qrapi.example.org"}, "KASPI_API_BASE must begin with https://"),
        ({"KASPI_API_BASE": "https://127.0.0.1:9000/kaspi"}, "KASPI_API_BASE must begin with https://"),
        ({"KASPI_API_BASE": "https://localhost/kaspi"}, "KASPI_API_BASE must begin with https://"),
        ({"KASPI_DEVICE_TOKEN": "device_kassa_sandbox"}, "The sandbox's keys are for development only"),
        (
            {"KASPI_API_SECRET": "pfx_kassa_sandbox", "KASPI_MODE": "r2", "KASPI_PFX": "/x.pfx"},
            "The sandbox's keys are for development only",
        ),
        (
            {
                "STRIPE_SECRET_KEY": "sk_test_1",
                "KASPI_MODE": "r1",
                "KASPI_API_KEY": "k",
                "KASPI_DEVICE_TOKEN": "t",
            },
            "Kaspi and the other providers are of different modes",
        ),
        (
            {
                "STRIPE_SECRET_KEY": "sk_live_1",
                "KASPI_MODE": "r1",
                "KASPI_API_KEY": "k",
                "KASPI_DEVICE_TOKEN": "t",
                "KASPI_TEST": "true",
            },
            "Kaspi and the other providers are of different modes",
        ),
        ({"SWEEP_BUDGET_SECONDS": "300"}, "SWEEP_BUDGET_SECONDS must be 250 or less"),
        ({"SWEEP_INTERVAL_SECONDS": "86400"}, "SWEEP_INTERVAL_SECONDS must be 3600 or less"),
        ({"MAX_POLL_DURATION_MINUTES": "0"}, "MAX_POLL_DURATION_MINUTES must be a whole number, 1 or more"),
        ({"MAX_POLL_DURATION_MINUTES": "99999"}, "MAX_POLL_DURATION_MINUTES must be 10080 or less"),
        ({"STUCK_MINUTES": "soon"}, "STUCK_MINUTES must be a whole number"),
        ({"TRUSTED_PROXIES": "1000"}, "TRUSTED_PROXIES must be 20 or less"),
        ({"WEB_THREADS": "0"}, "WEB_THREADS must be a whole number, 1 or more"),
        ({"WEB_CONCURRENCY": "1000"}, "WEB_CONCURRENCY must be 128 or less"),
        ({"LISTING_FEE": "9" * 20}, "LISTING_FEE must be 999999 or less"),
        ({"LISTING_FEE": "-1"}, "LISTING_FEE must be an amount of zero or more"),
        ({"WALLET_TOPUP_AMOUNTS": "10," + "9" * 5000}, "WALLET_TOPUP_AMOUNTS must be amounts of at most 12"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL must be a redis:// or rediss:// address"),
        ({"REDIS_URL": "redis://h:port"}, "REDIS_URL must be a redis:// or rediss:// address"),
        ({"DATABASE_URL": "postgresql://h:port/n"}, "DATABASE_URL must be a PostgreSQL address"),
        ({"KASSA_LIMITS": "false"}, "KASSA_LIMITS must be one of on, off"),
    ],
)
def test_what_is_refused(variables: dict[str, str], words: str) -> None:
    assert words in refusal(**variables)


def test_a_refusal_shows_no_secret() -> None:
    assert "hunter2" not in refusal(DATABASE_URL="mysql://kassa:hunter2@h/n")
    assert "sk_1234" not in refusal(STRIPE_SECRET_KEY="sk_1234")
    assert "hunter2" not in refusal(REDIS_URL="http://:hunter2@h:6379")
    assert "hunter2" not in refusal(DATABASE_URL="postgresql://kassa:hunter2@h:port/n")
    assert "hunter2" not in refusal(KASPI_PROXY_URL="http://kassa:hunter2@proxy:99999")
    assert "sk_live_hunter2" not in refusal(STRIPE_PUBLISHABLE_KEY="sk_live_hunter2")


def test_what_works_is_not_refused() -> None:
    settings = load(
        SITE_NAME="Théâtre du Léman",
        SUPPORT_EMAIL="hilfe@straße.example",
        MAIL_SENDER="Box office <box@example.org>",
        MAIL_SERVER="2001:db8::1",
        MAIL_USERNAME="kassa",
        MAIL_PASSWORD="p@ss: w/rd#1",
        LOGO_URL="https://example.org/logo.png?v=2",
        STRIPE_SESSION_MINUTES="1370",
        REDIS_URL="unix:///run/redis.sock?db=2",
        DATABASE_URL="postgres:///kassa?host=/var/run/postgresql",
    )
    assert settings.stripe_session_minutes == 1370 and settings.mail_server == "2001:db8::1"


def test_in_development_the_sandbox_is_welcome() -> None:
    settings = load(
        KASSA_ENV="development",
        SECRET_KEY="short",
        STRIPE_SECRET_KEY="sk_test_kassa_sandbox",
        STRIPE_API_BASE="http://127.0.0.1:9000/stripe/",
        KASSA_LIMITS="off",
    )
    assert settings.development and not settings.limits
    assert settings.stripe_api_base == "http://127.0.0.1:9000/stripe"


@pytest.mark.parametrize("word", ["", "production", "Development", "dev", "staging"])
def test_whatever_is_not_development_is_production(word: str) -> None:
    settings = load(KASSA_ENV=word, KASSA_LIMITS="off")
    assert settings.production
    assert settings.limits, "limits can be switched off in development only"


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("postgres://u:p@h:5432/n", "postgresql+psycopg://u:p@h:5432/n"),
        ("postgresql://u:p@h/n?sslmode=require", "postgresql+psycopg://u:p@h/n?sslmode=require"),
        ("postgresql+psycopg://u:p@h/n", "postgresql+psycopg://u:p@h/n"),
        ("postgresql:///n?host=/run/postgresql", "postgresql+psycopg:///n?host=/run/postgresql"),
    ],
)
def test_every_platform_s_database_url(url: str, made: str) -> None:
    assert load(DATABASE_URL=url).database_url == made


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://localhost:8000"),
        ({"PORT": "5000"}, "http://localhost:5000"),
        ({"RAILWAY_PUBLIC_DOMAIN": "kassa.up.railway.app"}, "https://kassa.up.railway.app"),
        ({"HEROKU_APP_DEFAULT_DOMAIN_NAME": "kassa-1.herokuapp.com"}, "https://kassa-1.herokuapp.com"),
        (
            {"PUBLIC_URL": "https://tickets.example.org/", "RAILWAY_PUBLIC_DOMAIN": "x.up.railway.app"},
            "https://tickets.example.org",
        ),
        ({"PUBLIC_URL": " http://127.0.0.1:8000 "}, "http://127.0.0.1:8000"),
    ],
)
def test_public_url(variables: dict[str, str], url: str) -> None:
    settings = load(**variables)
    assert settings.public_url == url
    assert settings.https == url.startswith("https://")


@pytest.mark.parametrize(
    ("key", "live"),
    [("sk_test_1", False), ("sk_live_1", True), ("rk_test_1", False), ("rk_live_1", True), ("", False)],
)
def test_the_key_decides_whether_money_is_real(key: str, live: bool) -> None:
    settings = load(STRIPE_SECRET_KEY=key, MAIL_API_KEY="re_1")
    assert settings.livemode is live
    assert settings.sales_open is bool(key)


def test_paid_sales_need_mail_too() -> None:
    assert not load(STRIPE_SECRET_KEY="sk_test_1").sales_open
    assert load(STRIPE_SECRET_KEY="sk_test_1", MAIL_SERVER="smtp.example.org").sales_open


def test_addresses_stand_in_for_one_another() -> None:
    alone = load(ADMIN_EMAIL="Me@Example.org")
    assert (alone.admin_email, alone.support_email) == ("me@example.org", "Me@Example.org")
    assert alone.alert_email == alone.mail_sender == "Me@Example.org"
    own = load(
        ADMIN_EMAIL="me@example.org",
        SUPPORT_EMAIL="help@example.org",
        PAYMENT_ALERT_EMAIL="alerts@example.org",
        MAIL_DEFAULT_SENDER="tickets@example.org",
    )
    assert (own.support_email, own.alert_email) == ("help@example.org", "alerts@example.org")
    assert own.mail_sender == "tickets@example.org"
    assert load(MAIL_SENDER="a@x.org", MAIL_DEFAULT_SENDER="b@x.org").mail_sender == "a@x.org"


def test_a_mailbox_on_this_machine_is_an_address_for_settings() -> None:
    made = load(ADMIN_EMAIL="root@localhost", MAIL_SENDER="Kassa <kassa@localhost>")
    settled = addresses.settle(made)
    assert (settled.admin_email, settled.alert_email) == ("root@localhost", "root@localhost")
    assert settled.mail_sender == "Kassa <kassa@localhost>"


@pytest.mark.parametrize(
    "typed", ["10,50,100,500", "1, 500", "50, 100, 500", "10,50,100,500,1000", "1500", "5,20"]
)
def test_a_list_of_amounts_is_read_where_it_can_only_be_one(typed: str) -> None:
    assert load(WALLET_TOPUP_AMOUNTS=typed).topup_amounts == tuple(map(int, typed.split(",")))


def test_names_of_older_settings_are_read() -> None:
    assert load(NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY="pk_test_1").stripe_publishable_key == "pk_test_1"
    both = load(STRIPE_PUBLISHABLE_KEY="pk_test_2", NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY="pk_test_1")
    assert both.stripe_publishable_key == "pk_test_2"


def test_values_are_read_kindly() -> None:
    settings = load(
        CURRENCY=" gbp ", WALLET_TOPUP_AMOUNTS=" 5, 20 ", MAIL_USE_TLS="Yes", SITE_NAME=" The Ropeworks "
    )
    assert (settings.currency, settings.topup_amounts) == ("GBP", (5, 20))
    assert settings.mail_use_tls and settings.site_name == "The Ropeworks"


def test_secrets_stay_out_of_what_is_printed() -> None:
    secrets = {
        "SECRET_KEY": "secret-key-0123456789",
        "DATABASE_URL": "postgresql://u:database-password@h/n",
        "REDIS_URL": "redis://:redis-password@h",
        "STRIPE_SECRET_KEY": "sk_test_topsecret",
        "STRIPE_WEBHOOK_SECRET": "whsec_topsecret",
        "MAIL_PASSWORD": "mail-password",
        "MAIL_API_KEY": "re_topsecret",
        "METRICS_TOKEN": "metrics-token",
    }
    printed = repr(load(**secrets))
    for word in ("0123456789", "-password", "topsecret", "metrics-token"):
        assert word not in printed


def test_each_purpose_has_a_key_of_its_own() -> None:
    settings, other = load(), load(SECRET_KEY="another-long-secret-key")
    keys = {settings.derived_key("tickets"), settings.derived_key("links"), other.derived_key("tickets")}
    assert len(keys) == 3 and {len(key) for key in keys} == {32}
    assert settings.derived_key("tickets") == load().derived_key("tickets")


def test_adapters_are_built_anew_for_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_current", load())
    before = registry.get("stripe")
    assert not before.ready and registry.get("stripe") is before
    config.use(load(STRIPE_SECRET_KEY="sk_test_1"))
    assert registry.get("stripe").ready


@pytest.mark.parametrize(("environment", "moved"), [("development", True), ("production", False)])
def test_the_clock_can_be_moved_in_development_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str, moved: bool
) -> None:
    monkeypatch.setattr(config, "_current", load(KASSA_ENV=environment, KASSA_HOME=str(tmp_path)))
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    (tmp_path / "clock").write_text("7200")
    ahead = clock.now() - datetime.now(UTC)
    assert (abs(ahead - timedelta(hours=2)) < timedelta(seconds=5)) is moved
    (tmp_path / "clock").write_text("")
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["payments", "sweep"], {"SECRET_KEY": ""}, "SECRET_KEY is not set."),
        (["--help"], {"SECRET_KEY": ""}, "SECRET_KEY is not set."),
        (["doctor"], {**LEAST, "LISTING_FEE": "1.005"}, "LISTING_FEE cannot be used. EUR amounts"),
    ],
)
def test_a_command_with_a_wrong_setting_says_so_in_one_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], words: str
) -> None:
    """An operator reads which variable to set, and no traceback."""
    command = [sys.executable, "-m", "flask", "--app", str(config.ROOT / "app.py"), *arguments]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    refused = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith(f"Error: {words}")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LISTING_FEE": "12.505"}, "LISTING_FEE cannot be used. EUR amounts have at most 2 digits"),
        ({"LISTING_FEE": "12.50", "CURRENCY": "JPY"}, "LISTING_FEE cannot be used. JPY amounts"),
        ({"LISTING_FEE": "1000000"}, "LISTING_FEE cannot be used. The largest amount is €999,999.99."),
        *(
            ({"LISTING_FEE": typed}, "LISTING_FEE must be an amount such as 12.50")
            for typed in ("1_000", "1e3", "１２", "+5", "NaN", "1 000", "9" * 21, "1e999999")
        ),
        *(
            (
                {"WALLET_TOPUP_AMOUNTS": typed},
                "WALLET_TOPUP_AMOUNTS has '1,500",
            )
            for typed in ("1,500", "10,50,1,500", "1,500,5000", "500, 1,500", "1,500,2,500")
        ),
        ({"LISTING_FEE": "1.000"}, "LISTING_FEE cannot be used. “1.000” may mean two amounts."),
        ({"LISTING_FEE": "1,000"}, "LISTING_FEE must be an amount such as 12.50"),
        ({"LISTING_FEE": "12,50"}, "LISTING_FEE must be an amount such as 12.50"),
        ({"LISTING_FEE": "-1"}, "LISTING_FEE must be an amount of zero or more"),
        ({"LISTING_FEE_CURRENCY": "XTS"}, "LISTING_FEE_CURRENCY must be a currency that people pay with"),
        ({"LISTING_FEE_CURRENCY": "UGX"}, "LISTING_FEE_CURRENCY cannot be used. Payments in UGX"),
        ({"WALLET_TOPUP_AMOUNTS": "10, 9999999"}, "WALLET_TOPUP_AMOUNTS cannot be used. The largest amount"),
        ({"WALLET_CURRENCY": "UGX"}, "WALLET_CURRENCY cannot be used. Payments in UGX"),
    ],
)
def test_an_amount_that_nobody_could_pay_stops_the_start(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        money.check_settings(load(**variables))
    assert words in str(refused.value)


def test_kaspi_alone_opens_sales_and_says_whether_the_money_is_real() -> None:
    mine = {"KASPI_MODE": "r1", "KASPI_API_KEY": "key", "MAIL_SERVER": "mail.example.org"}
    unregistered = load(**mine)
    assert unregistered.kaspi_speaks and not unregistered.kaspi_connects and not unregistered.sales_open
    registered = load(**mine, KASPI_DEVICE_TOKEN="token")
    assert registered.kaspi_connects and registered.sales_open and registered.livemode
    assert not load(**mine, KASPI_DEVICE_TOKEN="token", KASPI_TEST="true").livemode
    assert load(STRIPE_SECRET_KEY="sk_test_1", **mine, KASPI_TEST="true").livemode is False
    host = load(KASPI_API_BASE="https://mtokentest.kaspi.example:8545")
    assert host.kaspi_rate_per_second == 5 and not host.kaspi_ready
    # As `base64` wraps it, as a host keeps such lines in one, and a CA as it came.
    assert load(KASPI_PFX="MIIK\r\nZgIB\nAz==\n").kaspi_pfx == "MIIKZgIBAz=="
    assert load(KASPI_PFX="MIIK\\nZgIB").kaspi_pfx == "MIIKZgIB"
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    assert load(KASPI_CA=pem + "\n").kaspi_ca == pem
    assert load(KASPI_API_SECRET="secret").kaspi_pfx_password == "secret"
    assert load(KASPI_API_SECRET="secret", KASPI_PFX_PASSWORD="own").kaspi_pfx_password == "own"
    shown = repr(load(**mine, KASPI_DEVICE_TOKEN="device-token", KASPI_PFX_PASSWORD="pfx-password"))
    assert "device-token" not in shown and "pfx-password" not in shown
