// The button that makes or shows a passkey. Without this script it stays hidden, and a code is typed instead.
"use strict";

(() => {
  const button = document.getElementById("passkey-button");
  const field = document.getElementById("passkey");
  const problem = document.getElementById("passkey-problem");
  if (!button || !field || !window.PublicKeyCredential) return;
  button.hidden = false;

  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (sign) => sign.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-")
      .replace(/\//g, "_")
      .replace(/=+$/, "");

  // What the server says in JSON, with bytes where the browser wants bytes.
  function options() {
    const read = JSON.parse(button.dataset.options);
    read.challenge = bytes(read.challenge);
    if (read.user) read.user.id = bytes(read.user.id);
    for (const list of [read.excludeCredentials, read.allowCredentials])
      for (const each of list || []) each.id = bytes(each.id);
    return { publicKey: read };
  }

  function told(credential) {
    const said = credential.response;
    const response = { clientDataJSON: text(said.clientDataJSON) };
    if (said.attestationObject) response.attestationObject = text(said.attestationObject);
    if (said.authenticatorData) {
      response.authenticatorData = text(said.authenticatorData);
      response.signature = text(said.signature);
      if (said.userHandle) response.userHandle = text(said.userHandle);
    }
    return JSON.stringify({
      id: credential.id,
      rawId: text(credential.rawId),
      type: credential.type,
      response,
      clientExtensionResults: credential.getClientExtensionResults(),
    });
  }

  button.addEventListener("click", async () => {
    problem.hidden = true;
    button.disabled = true;
    try {
      const make = button.dataset.do === "create";
      const credential = make
        ? await navigator.credentials.create(options())
        : await navigator.credentials.get(options());
      field.value = told(credential);
      field.form.submit();
    } catch (error) {
      problem.textContent =
        error.name === "InvalidStateError"
          ? "That device has a passkey for this account already."
          : "Nothing came of it. Try again, or type a code.";
      problem.hidden = false;
      button.disabled = false;
    }
  });
})();
