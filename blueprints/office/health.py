"""/livez, /healthz and /metrics: how hosts, people and Prometheus see Kassa from outside."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from threading import Thread
from time import monotonic

import structlog
from flask import Blueprint, Flask, Response, abort, g, jsonify, request
from flask_login import current_user
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

import config
from domain.office import database_connections, health
from domain.office import metrics as business
from domain.post import outbox
from models import Role

bp = Blueprint("health", __name__)

REQUESTS = Counter(
    "kassa_http_requests_total",
    "Requests answered, by endpoint, method and status.",
    ("endpoint", "method", "status"),
    registry=None,
)
SECONDS = Histogram(
    "kassa_http_request_seconds",
    "How long requests took.",
    ("endpoint",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=None,
)
# What this module measures by itself; the rest is domain/office/metrics.py's.
REQUEST_METRICS = ("kassa_http_requests_total", "kassa_http_request_seconds")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_DELIVERY_SECONDS = 30


def register(app: Flask) -> None:
    """Add the pages, measure every request, and keep the dead man's switch wound."""
    health.process_began()
    app.register_blueprint(bp)
    app.before_request(_begin)
    app.after_request(_measure)

    @app.after_request
    def glance(response: Response) -> Response:
        if not app.testing and health.alarm.due():
            Thread(target=watch_sweeps, args=(app,), name="sweep-alarm", daemon=True).start()
        return response


def watch_sweeps(app: Flask) -> None:
    """Look whether sweeps go on; if they stopped, send that one alert from here: the worker may be dead."""
    with app.app_context():
        database_connections.warn_at_start()
        try:
            key = health.alarm.look()
            if key is not None:
                outbox.deliver_due(budget_seconds=_DELIVERY_SECONDS, limit=1, only=key)
        except SQLAlchemyError as error:
            structlog.get_logger(__name__).error("sweep_alarm_failed", error=type(error).__name__)


# --- Pages ----------------------------------------------------------------------------------------------


@bp.get("/livez")
def livez() -> tuple[Response, int]:
    """200 when web and database answer: what a deployment waits for."""
    well = health.alive()
    return jsonify(status="ok" if well else "down"), 200 if well else 503


@bp.get("/healthz")
def healthz() -> tuple[Response, int]:
    """Every part with its grade and words; 503 only without the database."""
    found = health.report()
    return jsonify(found.as_dict()), 503 if found.status == health.DOWN else 200


@bp.get("/metrics")
def metrics() -> Response:
    """The Prometheus text format, for whoever has the METRICS_TOKEN, and for admins."""
    if not _may_measure():
        abort(404)
    registry = CollectorRegistry()
    registry.register(_Business())
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REQUESTS)
        registry.register(SECONDS)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _may_measure() -> bool:
    """The token, compared in constant time; in development without a token anybody; else admins."""
    settings = config.get()
    if settings.metrics_token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if hmac.compare_digest(given.encode(), settings.metrics_token.encode()):
            return True
    elif settings.development:
        return True
    return current_user.is_authenticated and current_user.role is Role.ADMIN


class _Business(Collector):
    """The numbers of domain/office/metrics.py as Prometheus gauges."""

    def collect(self) -> Iterable[Metric]:
        samples = business.read()
        for metric in business.METRICS:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for sample in samples:
                if sample.metric is metric:
                    family.add_metric(sample.values, sample.number)
            yield family


# --- Measuring ------------------------------------------------------------------------------------------


def _begin() -> None:
    g.measured_from = monotonic()


def _measure(response: Response) -> Response:
    """Count the request under its endpoint: paths carry codes and secrets, and would be without number."""
    endpoint = request.endpoint or "none"
    method = request.method if request.method in _METHODS else "other"
    REQUESTS.labels(endpoint, method, str(response.status_code)).inc()
    if "measured_from" in g:
        SECONDS.labels(endpoint).observe(monotonic() - g.measured_from)
    return response
