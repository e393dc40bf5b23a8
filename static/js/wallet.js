// Puts the provider's own wallet button onto our pay page, and pays by it.
// What becomes of the payment is not decided here: the buyer is led back, and the server asks the provider.
"use strict";

(() => {
  const box = document.getElementById("wallet");
  const words = document.getElementById("wallet-words");
  const script = document.getElementById("wallet-script");
  const { key, secret, method } = box.dataset;

  function say(text, problem) {
    words.textContent = text;
    words.hidden = !text;
    words.className = problem ? "alert alert-danger" : "";
  }

  const broken = () => say(words.dataset.broken, true);

  // Where it goes well, the browser is led to the address of return, and nothing more happens here.
  async function failure(stripe, elements) {
    try {
      const { error } = await elements.submit();
      if (error) {
        return error;
      }
      return (await stripe.confirmPayment({ elements, confirmParams: { return_url: box.dataset.return } })).error;
    } catch (thrown) {
      return thrown;
    }
  }

  async function confirm(stripe, elements, event) {
    say("One moment: your bank is asked.");
    const error = await failure(stripe, elements);
    if (!error) {
      return;
    }
    if (error.type === "card_error" || error.type === "validation_error") {
      event.paymentFailed({ reason: "fail" });
      say(`${error.message || "The payment did not go through."} Nothing was charged. You can try again.`, true);
    } else {
      // Whether it was paid is not known here. The server asks.
      location.assign(box.dataset.return);
    }
  }

  function draw() {
    const stripe = Stripe(key);
    const elements = stripe.elements({ clientSecret: secret });
    const wanted = (name) => (name === method ? "always" : "auto");
    const button = elements.create("expressCheckout", {
      paymentMethods: {
        applePay: wanted("apple_pay"),
        googlePay: wanted("google_pay"),
        link: "never",
        paypal: "never",
        amazonPay: "never",
        klarna: "never",
      },
    });
    button.on("ready", ({ availablePaymentMethods }) => say(availablePaymentMethods ? "" : words.dataset.none));
    button.on("loaderror", broken);
    button.on("cancel", () => say("You have not paid yet. Press the button to try again."));
    button.on("confirm", (event) => confirm(stripe, elements, event));
    button.mount(box);
  }

  say(words.dataset.loading);
  // The provider's script comes after this one, from the provider, or does not come, or not as it should.
  script.addEventListener("load", () => {
    try {
      draw();
    } catch {
      broken();
    }
  });
  script.addEventListener("error", broken);
})();
