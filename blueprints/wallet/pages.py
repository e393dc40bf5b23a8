"""The wallet: balance and history, topping up, and the agents that are paid from it. Members only."""

from __future__ import annotations

import secrets

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

import config
from blueprints import visitor
from blueprints.access import members_only
from blueprints.shop import order_page
from domain.catalogue.prices import PriceChanged, tag
from domain.errors import DomainError
from domain.ledger import agents, wallet
from domain.ledger.transfers import InsufficientFunds
from domain.orders import top_ups
from domain.payments import presenting
from extensions import limiter
from models import Agent

bp = Blueprint("wallet", __name__, url_prefix="/wallet")


@bp.before_request
@members_only
def _members_only() -> None:
    """Every page here is about somebody's money."""


bp.after_request(visitor.not_kept)


@bp.get("/")
def index() -> str:
    before = request.args.get("before", "")
    member = visitor.member()
    unfinished = top_ups.unfinished(member)
    return render_template(
        "wallet/index.html",
        purses=wallet.purses(member),
        history=wallet.history(member, before_id=int(before) if _is_id(before) else None),
        paged=_is_id(before),
        unfinished=unfinished,
        unfinished_url=presenting.payment_url(unfinished) if unfinished is not None else None,
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


# --- Topping up -----------------------------------------------------------------------------------------


@bp.get("/topup/")
def topup() -> str:
    return _topup_page()


@bp.post("/topup/")
@limiter.limit("60 per hour", key_func=visitor.member_key)
def start_topup() -> BaseResponse | tuple[str, int]:
    try:
        order = top_ups.start_top_up(
            visitor.member(),
            top_ups.chosen_amount(request.form.get("amount", "")),
            provider=request.form.get("provider") or None,
            form_token=request.form.get("form_token", ""),
            client_address=request.remote_addr or "",
        )
    except DomainError as error:
        return _topup_page(error.message), 400
    return redirect(order_page.onward(order), 303)


def _topup_page(problem: str = "") -> str:
    settings = config.get()
    unfinished = top_ups.unfinished(visitor.member())
    return render_template(
        "wallet/topup.html",
        choices=list(zip(settings.topup_amounts, top_ups.amounts(), strict=True)),
        ways=top_ups.ways_to_pay(),
        purse=wallet.purses(visitor.member())[0],
        closed="" if settings.sales_open else top_ups.closed_words(),
        unfinished=unfinished,
        unfinished_url=presenting.payment_url(unfinished) if unfinished is not None else None,
        problem=problem,
        form_token=secrets.token_urlsafe(16),
    )


@bp.get("/top-up/success/")
@limiter.limit("120 per minute", key_func=visitor.member_key)
def topup_success() -> BaseResponse:
    back = top_ups.confirm_top_up(visitor.member(), request.args.get("session_id", ""))
    flash(back.words, "warning" if back.is_problem else "success")
    return redirect(url_for("wallet.index"), 303)


@bp.get("/top-up/cancel/")
def topup_cancel() -> BaseResponse:
    flash(top_ups.cancelled_words(visitor.member()), "info")
    return redirect(url_for("wallet.topup"), 303)


# --- Agents ---------------------------------------------------------------------------------------------


@bp.get("/agents/")
def agent_list() -> str:
    return render_template(
        "wallet/agents.html", agents=agents.catalogue(), purses=wallet.purses(visitor.member())
    )


@bp.get("/agents/<slug>/")
def agent(slug: str) -> str:
    return _agent_page(agents.find(slug))


@bp.post("/agents/<slug>/")
@limiter.limit("60 per minute", key_func=visitor.member_key)
def use_agent(slug: str) -> str | tuple[str, int]:
    found, text = agents.find(slug), request.form.get("text", "")
    try:
        use = agents.use(
            visitor.member(),
            found,
            text,
            token=request.form.get("form_token", "") or secrets.token_hex(),
            shown=request.form.get("price", ""),
        )
    except InsufficientFunds as error:
        return _agent_page(agents.find(slug), typed=text, problem=error.message, poor=True), 402
    except DomainError as error:
        status = 409 if isinstance(error, PriceChanged) else 400
        return _agent_page(agents.find(slug), typed=text, problem=error.message), status
    return _agent_page(agents.find(slug), typed=text, use=use)


def _agent_page(
    found: Agent, *, typed: str = "", problem: str = "", poor: bool = False, use: agents.Use | None = None
) -> str:
    return render_template(
        "wallet/agent.html",
        agent=found,
        price_tag=tag(found.price_minor, found.currency),
        service=agents.SERVICES[found.service],
        available_minor=wallet.available_minor(visitor.member(), found.currency),
        typed=typed,
        problem=problem,
        poor=poor,
        use=use,
        form_token=secrets.token_urlsafe(16),
    )
