// Keeps the order page true while a payment is on its way, and counts down what is held.
// The page is only loaded anew after an answer has arrived, so a lost connection leaves it as it is.
"use strict";

(() => {
  const order = document.getElementById("order");
  // By the server's clock at the time of rendering: a phone's own may be wrong.
  const clocks = [...document.querySelectorAll(".countdown")].map((clock) => ({
    clock,
    end: performance.now() + Number(clock.dataset.seconds) * 1000,
  }));
  const pace = Number(order.dataset.pace ?? 0) * 1000;
  let asked = 0;

  // Every 2 seconds (and a little: the server asks at most every 2) for the first 20, every 5 for the next minute, then every 30.
  // While a code is shown, as often as the page says.
  const pause = () => pace || (asked < 10 ? 2100 : asked < 22 ? 5000 : 30000);

  // Somebody who is typing a corrected address is not interrupted.
  const busy = () => document.activeElement?.closest("form")?.matches(".row-form") ?? false;

  async function ask() {
    asked += 1;
    try {
      const answer = await fetch(order.dataset.json, { cache: "no-store" });
      if (answer.ok && (await answer.json()).version !== order.dataset.version && !busy()) {
        location.replace(location.pathname);
        return;
      }
    } catch {
      // No connection: the page stays as it is, and asks again.
    }
    setTimeout(ask, pause());
  }

  function tick() {
    for (const { clock, end } of clocks) {
      const left = Math.max(0, Math.round((end - performance.now()) / 1000));
      const minutes = Math.floor(left / 60);
      clock.hidden = left > 6 * 3600;
      clock.textContent = left ? `${minutes}:${String(left % 60).padStart(2, "0")} left` : "time is up";
    }
  }

  if (clocks.length) {
    tick();
    setInterval(tick, 1000);
  }
  if (order.dataset.refresh === "soon") {
    setTimeout(ask, pause());
  }
})();
