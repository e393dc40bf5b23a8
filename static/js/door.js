// The door on a phone: the camera, sounds, and answers without loading the page anew. Without this script
// the page's forms do the same for typed codes and names.
"use strict";

(() => {
  const door = document.getElementById("door");
  const csrf = document.querySelector('meta[name="csrf-token"]').content;
  const panel = document.getElementById("verdict");
  const part = (name) => panel.querySelector(`[data-part="${name}"]`);
  const restForm = document.getElementById("rest");
  const undoForm = document.getElementById("undo");
  const video = document.getElementById("video");
  const cameraStatus = document.getElementById("camera-status");
  const cameraButton = document.getElementById("camera-button");
  const next = document.getElementById("next");

  const PATIENCE = 5000;
  // A code that stays before the camera is read over and over; it counts as one until it was away this long.
  const SAME_CODE = 3000;
  const AUTO_NEXT = 2500;

  // --- Talking to the server ----------------------------------------------------------------------------

  // Scans whose answer has not arrived, by what was said: scanned again they keep their id, and the server
  // repeats the verdict instead of calling the ticket used.
  const unanswered = new Map();

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function ask(url, body, type) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), PATIENCE);
    try {
      const answer = await fetch(url, {
        method: "POST",
        body,
        headers: { "Content-Type": type, Accept: "application/json", "X-CSRFToken": csrf },
        cache: "no-store",
        signal: controller.signal,
      });
      return { status: answer.status, told: await answer.json() };
    } finally {
      clearTimeout(timer);
    }
  }

  const askJson = (url, body) => ask(url, JSON.stringify(body), "application/json");

  // --- The verdict --------------------------------------------------------------------------------------

  const NOISES = {
    valid: { tones: [[880, 0.09], [1320, 0.16]], wave: "sine", shake: [80] },
    used: { tones: [[392, 0.12], [0, 0.05], [392, 0.12], [0, 0.05], [392, 0.12]], wave: "square", shake: [120, 60, 120, 60, 120] },
    wrong_event: { tones: [[660, 0.18], [440, 0.3]], wave: "triangle", shake: [250, 100, 250] },
    void: { tones: [[165, 0.7]], wave: "sawtooth", shake: [600] },
    forged: { tones: [[240, 0.1], [170, 0.1], [240, 0.1], [170, 0.1], [240, 0.1], [170, 0.1]], wave: "sawtooth", shake: [60, 40, 60, 40, 60, 40, 300] },
    unknown: { tones: [[330, 0.14], [0, 0.08], [294, 0.25]], wave: "triangle", shake: [150, 80, 150] },
    undone: { tones: [[523, 0.08], [392, 0.12]], wave: "sine", shake: [40] },
    not_checked: { tones: [[587, 0.1], [0, 0.12], [587, 0.1]], wave: "triangle", shake: [80, 120, 80] },
  };
  let audio = null;

  // Browsers allow sound only after a touch, so the first touch prepares it.
  function prepareSound() {
    audio ??= window.AudioContext ? new AudioContext() : null;
    audio?.resume();
  }

  function sound(verdict) {
    const noise = NOISES[verdict];
    navigator.vibrate?.(noise.shake);
    if (audio?.state !== "running") return;
    let at = audio.currentTime + 0.01;
    for (const [frequency, seconds] of noise.tones) {
      if (frequency) {
        const tone = audio.createOscillator();
        const loudness = audio.createGain();
        tone.type = noise.wave;
        tone.frequency.value = frequency;
        loudness.gain.setValueAtTime(0.35, at);
        loudness.gain.exponentialRampToValueAtTime(0.01, at + seconds);
        tone.connect(loudness).connect(audio.destination);
        tone.start(at);
        tone.stop(at + seconds);
      }
      at += seconds;
    }
  }

  let timer = 0;
  let shown = false;

  function show(told) {
    clearTimeout(timer);
    shown = true;
    panel.dataset.verdict = told.verdict;
    document.getElementById("verdict-title").textContent = told.title;
    part("holder").textContent = told.holder ?? "";
    part("type").textContent = told.type ?? "";
    part("words").textContent = told.words;
    restForm.hidden = !told.rest;
    part("rest").textContent = told.rest ?? "";
    restForm.elements.of.value = told.scan_id ?? "";
    restForm.elements.scan_id.value = newId();
    undoForm.hidden = told.verdict !== "valid";
    undoForm.elements.scan_id.value = told.scan_id ?? "";
    next.hidden = false;
    panel.hidden = false;
    panel.classList.add("is-over");
    sound(told.verdict);
    if (told.count) counted(told.count);
    if (told.verdict === "valid" && !told.rest) timer = setTimeout(dismiss, AUTO_NEXT);
    else next.focus({ preventScroll: true });
  }

  function dismiss() {
    clearTimeout(timer);
    shown = false;
    panel.hidden = true;
    panel.classList.remove("is-over");
    // Nothing was read meanwhile, so the code may have been before the camera all the time.
    last.seen = performance.now();
    // What was not checked may be shown to the camera again at once.
    if (panel.dataset.verdict === "not_checked") last.text = "";
  }

  const notChecked = (words) => ({ verdict: "not_checked", title: "NOT CHECKED", words });
  const NO_CONNECTION = {
    verdict: "not_checked",
    title: "NOT CHECKED: no connection, scan again",
    words: "A ticket that is scanned again is not counted twice.",
  };
  const isLost = (error) => error instanceof TypeError || error.name === "AbortError";

  function counted(count) {
    document.getElementById("admitted").textContent = count.admitted;
    document.getElementById("total").textContent = count.total;
  }

  let busy = false;

  // Whether there was an answer.
  async function check(said) {
    const text = said.trim();
    if (busy || !text) return false;
    busy = true;
    door.setAttribute("aria-busy", "true");
    const id = unanswered.get(text) ?? newId();
    unanswered.set(text, id);
    try {
      const { status, told } = await askJson(door.dataset.scan, { scan_id: id, text });
      if (status === 200) {
        unanswered.delete(text);
        remember(told);
        show(told);
        return true;
      } else {
        // The server said no to the request itself, so it has judged nothing under this id.
        if (status < 500) unanswered.delete(text);
        show(notChecked(told.message ?? "Scan again."));
      }
    } catch {
      show(NO_CONNECTION);
    } finally {
      busy = false;
      door.removeAttribute("aria-busy");
    }
    return false;
  }

  // Somebody who was looked up: what was found is out of date as soon as one of them is in.
  async function letIn(form) {
    if (!(await check(form.elements.code.value))) return;
    document.getElementById("results").replaceChildren();
    document.getElementById("q").value = "";
  }

  // --- The list of last scans ---------------------------------------------------------------------------

  function remember(told, undoId = told.scan_id) {
    document.getElementById("recent-none")?.remove();
    const entry = document.createElement("li");
    entry.className = "recent-entry";
    entry.dataset.verdict = told.verdict;
    const what = document.createElement("span");
    what.className = "recent-what";
    const title = document.createElement("b");
    title.textContent = told.title;
    what.append(title, ` ${told.holder ?? ""}`);
    const when = document.createElement("time");
    when.textContent = new Date().toLocaleTimeString("en-GB");
    entry.append(what, when);
    if (told.verdict === "valid") {
      const form = undoForm.cloneNode(true);
      form.removeAttribute("id");
      form.className = "undo";
      form.hidden = false;
      form.elements.scan_id.value = undoId;
      form.querySelector("button").className = "btn btn-sm btn-outline-secondary";
      entry.append(form);
    }
    const list = document.getElementById("recent");
    list.prepend(entry);
    while (list.children.length > 8) list.lastElementChild.remove();
  }

  async function undo(form) {
    const id = form.elements.scan_id.value;
    try {
      const { status, told } = await askJson(form.action, { scan_id: id });
      if (status !== 200) throw new Error(told.message);
      counted(told.count);
      for (const other of document.querySelectorAll(".recent-entry .undo")) {
        if (other.elements.scan_id.value === id) other.replaceWith("undone");
      }
      last.text = "";
      show({ verdict: "undone", title: "Undone", words: told.words });
    } catch (error) {
      const words = isLost(error) ? "No connection: try again." : error.message;
      show({ verdict: "not_checked", title: "NOT UNDONE", words });
    }
  }

  async function admitRest() {
    const of = restForm.elements.of.value;
    const id = restForm.elements.scan_id.value;
    const holder = part("holder").textContent;
    try {
      const { status, told } = await askJson(restForm.action, { of, scan_id: id });
      if (status !== 200) throw new Error(told.message);
      const verdict = { verdict: "valid", title: `${told.number} more`, holder, words: told.words, scan_id: id, count: told.count };
      remember(verdict);
      show(verdict);
    } catch (error) {
      // The form stays as it is, with its id: trying again lets nobody in twice.
      part("words").textContent = isLost(error) ? "NOT LET IN: no connection, try again." : error.message;
      sound("not_checked");
    }
  }

  // --- Forms --------------------------------------------------------------------------------------------

  document.addEventListener("pointerdown", prepareSound);

  document.addEventListener("submit", (submitted) => {
    const form = submitted.target;
    if (form.id === "typed") {
      submitted.preventDefault();
      check(form.elements.code.value);
      form.elements.code.value = "";
      form.elements.code.blur();
    } else if (form.classList.contains("admit")) {
      submitted.preventDefault();
      letIn(form);
    } else if (form.id === "search") {
      submitted.preventDefault();
      lookUp(form);
    } else if (form.id === "rest") {
      submitted.preventDefault();
      admitRest();
    } else if (form.id === "undo" || form.classList.contains("undo")) {
      submitted.preventDefault();
      undo(form);
    }
  });

  async function lookUp(form) {
    const results = document.getElementById("results");
    try {
      const answer = await fetch(`${form.action}?${new URLSearchParams(new FormData(form))}`, {
        cache: "no-store",
        signal: AbortSignal.timeout?.(PATIENCE),
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = page.getElementById("results");
      if (!found) throw new Error("no results");
      results.replaceChildren(...found.childNodes);
    } catch {
      results.textContent = "No connection: nobody was looked up. Try again.";
    }
  }

  next.addEventListener("click", dismiss);
  document.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Escape" && shown) dismiss();
  });

  // --- The camera ---------------------------------------------------------------------------------------

  const last = { text: "", seen: 0 };
  let stream = null;
  let read = null;

  function seen(text) {
    const now = performance.now();
    const same = text === last.text && now - last.seen < SAME_CODE;
    last.text = text;
    last.seen = now;
    if (!same && !shown) check(text);
  }

  async function reader() {
    if ("BarcodeDetector" in window && (await BarcodeDetector.getSupportedFormats()).includes("qr_code")) {
      const detector = new BarcodeDetector({ formats: ["qr_code"] });
      return { pause: 120, read: async () => (await detector.detect(video))[0]?.rawValue ?? null };
    }
    return { pause: 300, read: byServer };
  }

  const canvas = document.createElement("canvas");

  async function byServer() {
    const scale = Math.min(1, 960 / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const picture = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.6));
    if (!picture || picture.size > 300 * 1024) return null;
    const { status, told } = await ask(door.dataset.frame, picture, "image/jpeg");
    if (status !== 200) throw new Error(told.message);
    return told.text;
  }

  // A reading that ends after its camera was stopped is no reading any more.
  async function look(own) {
    if (stream !== own) return;
    if (!shown && !busy && video.readyState >= 2) {
      try {
        const text = await read.read();
        if (stream !== own) return;
        cameraStatus.textContent = "Point the camera at the code.";
        if (text) seen(text);
      } catch (error) {
        cameraStatus.textContent = isLost(error) ? "No connection: codes are not being read." : error.message;
      }
    }
    setTimeout(() => look(own), read.pause);
  }

  async function start() {
    prepareSound();
    try {
      read ??= await reader();
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
        audio: false,
      });
    } catch (error) {
      cameraStatus.textContent =
        error.name === "NotAllowedError"
          ? "The browser may not use the camera. Allow it in the browser's settings for this page, or type the code."
          : "No camera was found. Type the code.";
      return;
    }
    video.srcObject = stream;
    video.hidden = false;
    await video.play();
    cameraButton.textContent = "Stop the camera";
    navigator.wakeLock?.request("screen").catch(() => {
      cameraStatus.textContent = "Keep the screen on by touching it now and then.";
    });
    look(stream);
  }

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.hidden = true;
    cameraButton.textContent = "Start the camera";
  }

  document.getElementById("camera").hidden = false;
  if (navigator.mediaDevices?.getUserMedia) {
    cameraButton.addEventListener("click", () => (stream ? stop() : start()));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && stream) stop();
    });
  } else {
    cameraButton.hidden = true;
    cameraStatus.textContent = "The camera needs an https address. Type the code instead.";
  }

  // --- What the other doors do --------------------------------------------------------------------------

  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(door.dataset.count, { cache: "no-store", headers: { Accept: "application/json" } });
      if (answer.ok) counted(await answer.json());
    } catch {
      // The count waits for the connection; a scan says by itself that there is none.
    }
  }, 20000);
})();
