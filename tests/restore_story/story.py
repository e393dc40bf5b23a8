"""Load, a backup in the midst of it, more load, everything lost, restored, and what must hold then.

Nothing is taken from the program's own memory: the providers' side is the sandbox's books, ours are the
database's rows, and all that is done is done through pages, the API and an operator's commands.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrage import x25519

from tests.restore_story import buyers
from tests.restore_story.buyers import CURRENCY, PRICE, Purchase, Wares
from tests.restore_story.shops import ADMIN, MEMBER, ORGANISER, Answer, Browser, Gone, Shop

DAY = 24 * 3600


@dataclass
class Outcome:
    """What was seen, for whoever reads the report. `problems` is empty when all held."""

    purchases: int = 0
    paid: Counter[str] = field(default_factory=Counter)
    orders_in_backup: int = 0
    paid_after_the_backup: int = 0
    lost_orders: int = 0
    incidents: int = 0
    written_down: int = 0
    refunds_mirrored: int = 0
    mails_held: int = 0
    attached: Counter[str] = field(default_factory=Counter)
    sums: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def check(self, holds: object, words: str) -> None:
        if not holds:
            self.problems.append(words)


class Story:
    """One run. `purchases` before, during and after the backup, by so many `hands` at a time."""

    def __init__(
        self, shop: Shop, folder: Path, identity: x25519.Identity, *, purchases: Sequence[int], hands: int
    ) -> None:
        self.shop, self.folder, self.identity = shop, folder, identity
        self.purchases, self.hands = purchases, hands
        self.outcome = Outcome(sum(purchases))
        self.bought: dict[str, Purchase] = {}
        self.later: list[Purchase] = []
        # Is in the backup, and is paid while the shop is closed.
        self.still_open: Purchase | None = None
        # Of sums that went back after the backup, by the order's code; one of them is asked for again.
        self.returned: dict[str, int] = {}
        self.again: tuple[str, int] | None = None
        self.disputed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self) -> Outcome:
        self._prepare()
        before, during, after = self.purchases
        self._load(range(before), waits=True)
        backup = self._back_up(range(before, before + during))
        known = self._orders()
        self._go_on(range(before + during, before + during + after))
        mails, due_then = self._lose_and_restore(backup)
        self._closed(mails, due_then, known)
        self._open(mails)
        self._a_day_later()
        self._attach_all()
        return self.outcome

    # --- Before the end ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        shop = self.shop
        for provider, currency in CURRENCY.items():
            self._event(f"story-{provider}", provider, currency)
        drafts = [f"story-fee-{number}" for number in range(4)]
        for slug in drafts:
            self._event(slug, "stripe", "EUR")
        shop.rows(
            "UPDATE events SET state = 'draft', organiser_id = (SELECT id FROM users WHERE email = %s) "
            "WHERE slug LIKE 'story-fee-%%' RETURNING id",
            ORGANISER,
        )
        # Places for everybody, of any age.
        shop.rows("UPDATE categories SET min_age = NULL, max_age = NULL RETURNING ticket_type_id")
        shop.rows(
            "UPDATE ticket_types SET capacity = 100000 "
            "WHERE id IN (SELECT ticket_type_id FROM categories) RETURNING id"
        )
        found = shop.browser().ask("GET", f"/api/v1/tournaments/{shop.tournament}/categories").json["items"]
        of = {"KZT" if one["currency"] == "KZT" else "EUR": one for one in found if float(one["amount"]) > 0}
        self.wares = Wares(drafts, of)

    def _event(self, slug: str, provider: str, currency: str) -> None:
        told = ["--capacity", "100000", "--price-minor", str(PRICE), "--currency", currency]
        self.shop.flask("demo", "event", "--slug", slug, *told, "--provider", provider)

    def _load(self, numbers: Iterable[int], *, waits: bool = False) -> None:
        """Purchases by many hands: some are paid and looked at, some paid only, some later, some never."""
        if self.hands == 1:
            for number in numbers:
                self._one(number, waits=waits)
            return
        with ThreadPoolExecutor(self.hands) as pool:
            for _ in pool.map(lambda number: self._one(number, waits=waits), numbers):
                pass

    def _one(self, number: int, *, waits: bool) -> None:
        made = buyers.quietly(self.shop, self.wares, number)
        if made is None:
            return
        with self._lock:
            self.bought[made.code] = made
        fate = number * 7 % 10
        if waits and fate < 4:
            with self._lock:
                self.later.append(made)
        elif fate != 9:
            buyers.pay(self.shop, made)
            if fate % 2:
                self._comes_back(made)

    def _comes_back(self, made: Purchase) -> None:
        try:
            buyers.come_back(self.shop, made)
        except Gone:
            return

    def _back_up(self, numbers: Iterable[int]) -> Path:
        """By the command, while people buy, and mails are owed that leave a moment later."""
        self.shop.hold_mails(True)
        places = self.folder / "backups"
        places.mkdir()
        said: list[str] = []
        command = threading.Thread(
            target=lambda: said.append(self.shop.flask("backup", "--to", f"{places}/"))
        )
        if self.hands > 1:
            command.start()
            self._load(numbers)
            command.join()
        else:
            self._load(numbers)
            command.run()
        assert said and "SHA-256" in said[0], said
        self.shop.hold_mails(False)
        return next(path for path in places.iterdir() if path.name.endswith(".age"))

    def _go_on(self, numbers: Iterable[int]) -> None:
        """What the backup does not have: payments of its orders, more orders, refunds and disputes."""
        self._load(numbers)
        later = [made for made in self.later if made.what != "listing"] + [
            made for made in self.later if made.what == "listing"
        ]
        self.still_open = next((made for made in later if made.provider == "stripe"), None)
        for place, made in enumerate(one for one in later if one is not self.still_open):
            buyers.pay(self.shop, made)
            if place % 2:
                self._comes_back(made)
        boss = self.shop.program(ADMIN)
        settled = [made for made in self.bought.values() if self._public_id(made) and made.what == "tickets"]
        for place, made in enumerate(one for one in settled if one.provider != "kaspi"):
            whole = made.quantity * PRICE
            if place % 5 == 0:
                self._refund(boss, made, 300)
            elif place % 5 == 1:
                self._refund(boss, made, whole)
            elif place % 5 == 2:
                self.shop.control(f"payments/{made.session}", {"do": "refund", "amount_minor": 200})
                self.returned[made.code] = 200
            elif place % 5 == 3 and made.provider == "stripe":
                self.shop.control(f"payments/{made.session}", {"do": "dispute"})
                self.disputed[made.provider] += whole

    def _refund(self, boss: Browser, made: Purchase, minor: int) -> None:
        path = f"/payments/{self._public_id(made)}/refund"
        answer = boss.call("POST", path, {"amount": minor / 100, "reason": "Ill"}, key=f"back-{made.code}")
        assert answer.status == 201, answer.text
        self.returned[made.code] = minor
        if minor == 300 and self.again is None:
            self.again = made.code, minor

    def _public_id(self, made: Purchase) -> str:
        found = self.shop.rows(
            "SELECT public_id FROM payments WHERE provider_id = %s AND state = 'paid'", made.session
        )
        return str(found[0][0]) if found else ""

    def _orders(self) -> set[str]:
        return {code for (code,) in self.shop.rows("SELECT code FROM orders")}

    def _lose_and_restore(self, backup: Path) -> tuple[int, int]:
        """Nothing is left but the backup and its key. How many mails had left, and how many it has as due."""
        key = self.folder / "key.txt"
        key.write_text(f"{self.identity}\n")
        self.shop.lose()
        left = len(self.shop.control("mail?limit=10000"))
        said = self.shop.flask("restore", str(backup), "--identity", str(key))
        self.outcome.check("This is the shop's epoch 2, and it is closed" in said, said)
        return left, int(self.shop.rows("SELECT count(*) FROM outbox WHERE held_with = 'backup'")[0][0])

    # --- Closed -----------------------------------------------------------------------------------------

    def _closed(self, mails: int, due: int, known: set[str]) -> None:
        seen, here = self.outcome, self._orders()
        seen.orders_in_backup = len(here & self.bought.keys())
        seen.check(here <= known, "the backup has orders that were not there when it ended")
        of_backup = {
            reference
            for (reference,) in self.shop.rows("SELECT reference FROM payments WHERE state = 'paid'")
        }
        self.shop.open_again()
        paid = [one for one in self._books() if one["status"] == "paid"]
        seen.paid = Counter(one["provider"] for one in paid)
        in_backup = [one for one in paid if self._code(one) in here]
        seen.paid_after_the_backup = sum(one["reference"] not in of_backup for one in in_backup)
        seen.check(seen.paid_after_the_backup, "no order of the backup was paid after it")
        self._has_goods(in_backup)
        lost = [one for one in paid if self._code(one) not in here]
        seen.lost_orders = len(lost)
        self._are_incidents(lost)
        self._mirrored(here)
        self._sums("closed")
        self._rings()
        seen.mails_held = due
        seen.check(due, "no mail was due at the backup")
        waits = "SELECT count(*) FROM outbox WHERE held_with = 'backup' AND state = 'due'"
        seen.check(self.shop.rows(waits)[0][0] == due, "a mail that was due at the backup has left")
        self._sells_nothing(here)
        # Nobody hurries: it stays closed for hours, and that is no fault of anything.
        self.shop.control("clock", {"advance_seconds": 3 * 3600})
        self.shop.flask("payments", "sweep")
        self._sound("closed")
        seen.check(len(self.shop.control("mail?limit=10000")) == mails, "a closed shop has mailed somebody")

    def _books(self) -> list[dict[str, Any]]:
        """What the providers have of this story."""
        known = self.shop.control("payments?limit=10000")
        return [one for one in known if self._code(one) in self.bought]

    @staticmethod
    def _code(payment: dict[str, Any]) -> str:
        return str(payment["reference"]).rsplit("-", 1)[0]

    def _has_goods(self, paid: Iterable[dict[str, Any]]) -> None:
        """Within one sweep: what was paid for is there, once."""
        query = (
            "SELECT o.state, o.completed_at IS NOT NULL, "
            "(SELECT count(*) FROM tickets t WHERE t.order_id = o.id), "
            "(SELECT count(*) FROM payments p WHERE p.order_id = o.id AND p.state = 'paid') "
            "FROM orders o WHERE o.code = %s"
        )
        for payment in paid:
            code = self._code(payment)
            made = self.bought[code]
            state, completed, tickets, payments = self.shop.rows(query, code)[0]
            wanted = {"tickets": made.quantity, "entry": 1}.get(made.what, 0)
            self.outcome.check(
                completed and tickets == wanted and payments == 1,
                f"{code} ({made.what}, {made.provider}) is {state} with {tickets} tickets, {payments} paid",
            )

    def _are_incidents(self, lost: Sequence[dict[str, Any]]) -> None:
        """Money whose order was lost waits for a person, once, with who paid; Kaspi's is written down."""
        silent = [one for one in lost if one["provider"] == "kaspi"]
        if silent:
            self._write_down(silent)
        query = (
            "SELECT evidence->'named'->>'provider_id', evidence->'payer'->>'email', amount_minor "
            "FROM incidents WHERE kind = 'unknown_payment'"
        )
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for name, email, amount in self.shop.rows(query):
            found[name].append((email, amount))
        for payment in lost:
            made = self.bought[self._code(payment)]
            waits = found.pop(payment["id"], [])
            left = payment["amount_minor"] - payment["refunded_minor"]
            if not left:
                self.outcome.check(not waits, f"{made.code} went back whole, and is an incident")
                continue
            self.outcome.incidents += len(waits)
            what = f"{made.code} ({made.what}, {made.provider}) was lost, and is {waits}"
            self.outcome.check(len(waits) == 1 and waits[0][1] == left, what)
            if made.provider == "stripe" and waits:
                self.outcome.check(waits[0][0] == made.email, f"{what}: {made.email} has paid it")
        self.outcome.check(not found, f"incidents of no lost order: {dict(found)}")

    def _write_down(self, silent: Sequence[dict[str, Any]]) -> None:
        """A person reads in the bank's app what its API does not tell; twice, as people do."""
        boss = self.shop.member(ADMIN)
        self.outcome.check(
            "Write down what came" in boss.get("/admin/restored").text, "the page does not say who is silent"
        )
        lines = "\n".join(f"{one['id']} {one['reference']}" for one in silent)
        for _ in range(2):
            said = boss.post("/admin/incidents/lost", provider="kaspi", lines=lines)
            self.outcome.check("not taken" not in said.text, f"not taken: {said.text[:3000]}")
        self.outcome.written_down = len(silent)

    def _mirrored(self, here: set[str]) -> None:
        """What went back after the backup is known, and as much as went."""
        query = (
            "SELECT coalesce(sum(r.amount_minor), 0) FROM refunds r JOIN payments p ON p.id = r.payment_id "
            "JOIN orders o ON o.id = p.order_id WHERE o.code = %s AND r.state IN ('pending', 'succeeded')"
        )
        for code, minor in self.returned.items():
            if code in here:
                got = self.shop.rows(query, code)[0][0]
                self.outcome.check(got == minor, f"{minor} of {code} went back, and {got} is known here")
                self.outcome.refunds_mirrored += 1
        self.outcome.check(self.outcome.refunds_mirrored, "no refund was lost")

    def _sums(self, when: str) -> None:
        """Each provider's account in our ledger has what it has in the provider's own books."""
        theirs: Counter[str] = Counter()
        for one in self._books():
            if one["status"] == "paid":
                theirs[f"{one['provider']} {one['currency']}"] += one["amount_minor"] - one["refunded_minor"]
        for provider, minor in self.disputed.items():
            theirs[f"{provider} EUR"] -= minor
        ours: Counter[str] = Counter()
        query = (
            "SELECT split_part(account, ':', 2), currency, sum(minor) FROM ("
            "SELECT debit AS account, currency, amount_minor AS minor FROM transfers UNION ALL "
            "SELECT credit, currency, -amount_minor FROM transfers) moved "
            "WHERE account LIKE 'provider:%%' GROUP BY 1, 2"
        )
        for provider, currency, minor in self.shop.rows(query):
            ours[f"{provider} {currency}"] += int(minor)
        self.outcome.sums = dict(theirs)
        self.outcome.check(
            {name: n for name, n in ours.items() if n} == {name: n for name, n in theirs.items() if n},
            f"{when}: ours have {dict(ours)}, and theirs {dict(theirs)}",
        )

    def _rings(self) -> None:
        """Who has paid just now is heard of at once, though the shop is closed: it is money that came."""
        made = self.still_open
        if made is None:
            self.outcome.problems.append("nobody had an open order in the backup")
            return
        buyers.pay(self.shop, made)
        if not self.shop.wait_for_ring():
            self._comes_back(made)
        query = "SELECT completed_at IS NOT NULL FROM orders WHERE code = %s"
        ends = time.monotonic() + 30
        while not self.shop.rows(query, made.code)[0][0] and time.monotonic() < ends:
            time.sleep(0.5)
        self.outcome.check(
            self.shop.rows(query, made.code)[0][0], f"{made.code} was rung of, and is not settled"
        )

    def _sells_nothing(self, here: set[str]) -> None:
        """No sale, no refund; but what a provider rings of is heard."""
        browser, orders = self.shop.browser(), self._orders()
        page = browser.get("/events/story-stripe").text
        self.outcome.check("not on sale" in page, "a closed shop shows tickets for sale")
        program, boss = self.shop.program(MEMBER), self.shop.program(ADMIN)
        body = {"name": "Athlete Late", "birth_date": "1995-05-31"}
        athlete = program.call("POST", "/athletes", body).json["athlete_id"]
        body = {"category_id": self.wares.categories["EUR"]["category_id"], "athlete_id": athlete}
        self._refused(program.call("POST", "/participants", body), "an entry")
        if self.again is not None:
            path = f"/payments/{self._public_id(self.bought[self.again[0]])}/refund"
            self._refused(boss.call("POST", path, {"amount": 1, "reason": "Ill"}), "a refund")
        self.outcome.check(self._orders() == orders == here, "an order was made in a closed shop")

    def _refused(self, answer: Any, what: str) -> None:
        code = (answer.json or {}).get("error", {}).get("code") if isinstance(answer.json, dict) else ""
        self.outcome.check(
            answer.status == 503 and "shop_closed" in answer.text,
            f"{what}: {answer.status} {code} {answer.text[:300]}",
        )

    def _sound(self, when: str) -> None:
        said = self.shop.flask("invariants")
        self.outcome.check("Every invariant holds" in said, f"{when}: {said}")

    # --- Open again -------------------------------------------------------------------------------------

    def _open(self, mails: int) -> None:
        boss = self.shop.member(ADMIN)
        boss.post("/admin/restored/open", page="/admin/restored")
        opened = "SELECT opened_at IS NOT NULL FROM epochs WHERE number = 2"
        self.outcome.check(self.shop.rows(opened)[0][0], boss.get("/admin/restored").text[-3000:])
        self._mails_leave(mails)

    def _mails_leave(self, before: int) -> None:
        """Of what was found since; and of what was due at the backup only what a person sends."""
        self.shop.send_mails()
        held = "SELECT id FROM outbox WHERE held_with = 'backup' AND state = 'due' ORDER BY id"
        waits = self.shop.rows(held)
        after = len(self.shop.control("mail?limit=10000"))
        self.outcome.check(
            len(waits) == self.outcome.mails_held, "a mail that was due at the backup has left"
        )
        self.outcome.check(after > before, "no mail of what was found has left")
        if waits:
            boss = self.shop.member(ADMIN)
            boss.post(f"/admin/mail/{waits[0][0]}/retry", page="/admin/mail?state=due")
            self.shop.send_mails()
            self.outcome.check(len(self.shop.rows(held)) == len(waits) - 1, "a person's word sends no mail")

    def _a_day_later(self) -> None:
        """The refund that was made in the lost time is asked for again: it is not sent twice."""
        self.shop.control("clock", {"advance_seconds": DAY})
        self.shop.forget()
        if self.again is None:
            self.outcome.problems.append("no partial refund was lost")
            return
        code, minor = self.again
        made, boss = self.bought[code], self.shop.program(ADMIN)
        before = self.shop.control(f"payments/{made.session}")["refunded_minor"]
        path, body = f"/payments/{self._public_id(made)}/refund", {"amount": minor / 100, "reason": "Ill"}
        answer = boss.call("POST", path, body, key=f"back-{code}")
        self.outcome.check(
            answer.status == 409 and "refunded_before_restore" in answer.text,
            f"{answer.status} {answer.text}",
        )
        if self.hands > 1:
            # A short run makes no files for all the mails that leave with it.
            self.shop.flask("payments", "sweep")
        after = self.shop.control(f"payments/{made.session}")["refunded_minor"]
        self.outcome.check(after == before == minor, f"{after} of {code} went back, not {minor}")

    def _attach_all(self) -> None:
        """A person gives each lost order back to its buyer, or sends the money back."""
        boss = self.shop.member(ADMIN)
        query = (
            "SELECT id, evidence->>'reference' FROM incidents "
            "WHERE kind = 'unknown_payment' AND resolved_at IS NULL ORDER BY id"
        )
        for incident, reference in self.shop.rows(query):
            made = self.bought[str(reference).rsplit("-", 1)[0]]
            kind, words = "", ""
            at, form = f"/admin/incidents/{incident}", self._form(made)
            known = {"name": f"Buyer {made.number}", "email": made.email, "reason": "By their mail"}
            if form and made.number % 4:
                page = f"{at}/attach?what={form['what']}&email={made.email}"
                kind, words = self._said(boss, boss.post(f"{at}/attach", page, **known, **form))
                self.outcome.attached[made.what] += kind == "success"
            if not form or made.number % 4 == 0 or "Send back the rest" in words:
                kind, words = self._said(boss, boss.post(f"{at}/send-back", at, **known))
                self.outcome.attached["sent back"] += 1
            self.outcome.check(kind == "success", f"{made.code} ({made.what}, {made.provider}): {words}")
        left = self.shop.rows(query)
        self.outcome.check(not left, f"{len(left)} incidents could not be decided: {left[:5]}")
        self._sums("attached")
        self._sound("attached")
        marks = self.shop.rows("SELECT count(*) FROM orders GROUP BY code HAVING count(*) > 1")
        self.outcome.check(not marks, "an order is there twice")
        anew = buyers.begin(self.shop, self.wares, 0)
        self.outcome.check(anew.reference.endswith("-1-E2"), f"{anew.reference} has no epoch")

    def _said(self, boss: Browser, answer: Answer) -> tuple[str, str]:
        """How a deed went, by the page after it."""
        html = boss.get(answer.location).text if answer.location else answer.text
        said = re.search(r'class="alert alert-(\w+)[^>]*>\s*([^<]+)', html)
        return (said[1], said[2]) if said else ("", f"{answer.status} {answer.text[:500]}")

    def _form(self, made: Purchase) -> dict[str, Any]:
        """What the person fills in; nothing where the athlete was lost with the entry."""
        if made.what == "tickets":
            query = (
                "SELECT e.id, t.id FROM events e JOIN ticket_types t ON t.event_id = e.id WHERE e.slug = %s"
            )
            event, kind = self.shop.rows(query, f"story-{made.provider}")[0]
            return {"what": f"tickets:{event}", f"quantity-{kind}": made.quantity}
        if made.what == "top_up":
            return {"what": "top_up"}
        if made.what == "listing":
            draft = self.shop.rows(
                "SELECT id FROM events WHERE slug LIKE 'story-fee-%%' AND state = 'draft' LIMIT 1"
            )
            return {"what": f"listing:{draft[0][0]}"} if draft else {}
        return {}


def told(outcome: Outcome, write: Callable[[str], None]) -> None:
    """The outcome, a line each."""
    for name, value in vars(outcome).items():
        write(f"{name}: {dict(value) if isinstance(value, Counter) else value}")
