// The event page without this script is complete: it only adds plus and minus buttons and a running total.
"use strict";

(() => {
  const form = document.getElementById("buy");
  const total = document.getElementById("total");
  const counts = [...form.querySelectorAll("input[data-price]")];
  const digits = Number(form.dataset.decimals);
  const money = new Intl.NumberFormat("en", {
    style: "currency",
    currency: form.dataset.currency,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });

  const wanted = (input) => Math.max(0, parseInt(input.value, 10) || 0);

  function show() {
    const minor = counts.reduce((sum, input) => sum + wanted(input) * Number(input.dataset.price), 0);
    const any = counts.some((input) => wanted(input) > 0);
    total.hidden = !any;
    total.querySelector("output").textContent = minor ? money.format(minor / 10 ** digits) : "Free";
  }

  function stepper(input, text, change, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "step";
    button.textContent = text;
    button.setAttribute("aria-label", `${label}: ${input.labels[0].textContent}`);
    button.addEventListener("click", () => {
      input.value = Math.min(Number(input.max), Math.max(0, wanted(input) + change));
      show();
    });
    return button;
  }

  for (const input of counts) {
    const box = document.createElement("div");
    box.className = "steps";
    input.before(box);
    box.append(stepper(input, "−", -1, "One less"), input, stepper(input, "+", 1, "One more"));
    input.addEventListener("input", show);
  }

  // A second press while the first is on its way would only make the buyer wait for both.
  const button = form.querySelector("button[type=submit]");
  form.addEventListener("submit", (event) => {
    if (button.getAttribute("aria-disabled")) {
      event.preventDefault();
    }
    button.setAttribute("aria-disabled", "true");
  });
  // Also when the buyer comes back to this page from the payment.
  window.addEventListener("pageshow", () => {
    button.removeAttribute("aria-disabled");
    show();
  });
  document.getElementById("problems")?.focus();
  show();
})();
