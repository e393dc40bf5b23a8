// A stand-in for Stripe.js, for development and tests: the part that an Express Checkout Element needs.
// Its button is in a frame of the sandbox's, as Stripe's is in one of Stripe's.
"use strict";

(() => {
  const ORIGIN = "{{ origin }}";
  const NAMES = { applePay: "apple_pay", googlePay: "google_pay" };

  class Element {
    constructor(options) {
      const ways = options?.paymentMethods ?? {};
      this.wallets = Object.keys(NAMES).filter((name) => ways[name] !== "never");
      this.handlers = {};
      this.chosen = null;
    }

    on(event, handler) {
      this.handlers[event] = handler;
      return this;
    }

    mount(where) {
      const box = typeof where === "string" ? document.querySelector(where) : where;
      const frame = document.createElement("iframe");
      const query = this.wallets.map((name) => `wallet=${NAMES[name]}`).join("&");
      frame.src = `${ORIGIN}/stripe/js/button?${query}`;
      frame.title = "Pay with a wallet";
      frame.allow = "payment";
      frame.style.width = "100%";
      frame.style.border = "0";
      addEventListener("message", (message) => {
        if (message.origin === ORIGIN && message.source === frame.contentWindow) {
          this.told(frame, message.data);
        }
      });
      box.replaceChildren(frame);
    }

    told(frame, data) {
      if (data.height) {
        frame.style.height = `${data.height}px`;
        const available = Object.fromEntries(this.wallets.map((name) => [name, true]));
        this.handlers.ready?.({ elementType: "expressCheckout", availablePaymentMethods: this.wallets.length ? available : undefined });
      } else if (data.pressed) {
        this.chosen = { wallet: data.pressed, card: data.card };
        this.handlers.confirm?.({ elementType: "expressCheckout", expressPaymentType: data.pressed, paymentFailed() {} });
      }
    }
  }

  class Elements {
    constructor(options) {
      this.secret = options.clientSecret;
    }

    create(kind, options) {
      if (kind !== "expressCheckout") {
        throw new Error(`The sandbox's stand-in has no element ${kind}.`);
      }
      this.element = new Element(options);
      return this.element;
    }

    async submit() {
      return {};
    }
  }

  function Stripe(key) {
    return {
      elements: (options) => new Elements(options),
      async confirmPayment({ elements, clientSecret, confirmParams }) {
        const secret = clientSecret ?? elements.secret;
        const intent = secret.split("_secret_")[0];
        const { wallet, card } = elements.element.chosen;
        const body = new URLSearchParams({ key, client_secret: secret, wallet, card, return_url: confirmParams.return_url });
        let answer;
        try {
          const response = await fetch(`${ORIGIN}/stripe/js/payment_intents/${intent}/confirm`, { method: "POST", body });
          answer = await response.json();
        } catch {
          return { error: { type: "api_connection_error", message: "The sandbox cannot be reached." } };
        }
        if (answer.error) {
          return answer;
        }
        location.assign(answer.redirect);
        return new Promise(() => {});
      },
    };
  }

  window.Stripe = Stripe;
})();
