// Keeps the status page up to date: puts regions in the place of what was there, and ages what has a time.
"use strict";

(() => {
  const TROUBLE_AFTER_MS = 2000;
  const REOPEN_MS = 1000;
  const TICK_MS = 1000;
  const PREPARING = ["stage", "preflight", "drain", "quiesce", "seal", "exec", "adopt", "probation"];

  const by = (id) => document.getElementById(id);
  const shown = new Map();

  // Regions come from the gateway, which has escaped every text in them.
  const show = (regions) => {
    for (const [id, markup] of Object.entries(regions)) {
      const region = by(id);
      if (!region || shown.get(id) === markup) continue;
      shown.set(id, markup);
      region.innerHTML = markup;
    }
    age();
  };

  const phaseShown = (phase, detail) => {
    const now = PREPARING.indexOf(phase);
    by("underway").hidden = now < 0;
    if (now < 0) return;
    if (by("underway-phase").textContent !== phase) by("underway-phase").textContent = phase;
    if (by("underway-detail").textContent !== detail) by("underway-detail").textContent = detail;
    for (const step of document.querySelectorAll(".steps li")) {
      const at = PREPARING.indexOf(step.dataset.phase);
      step.className = at < now ? "is-done" : at === now ? "is-now" : "";
    }
  };

  // Ages.
  const span = (seconds) => {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  };
  // By how much this clock is ahead of the gateway's.
  let ahead = 0;
  const age = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const seconds = Math.floor((Date.now() - ahead - Date.parse(time.dateTime)) / 1000);
      let text = null;
      if ("ago" in time.dataset) text = `${span(Math.max(0, seconds))} ago`;
      else if ("for" in time.dataset) text = span(Math.max(0, seconds));
      else if ("in" in time.dataset) text = `in ${span(Math.max(0, -seconds))}`;
      if (text !== null && time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(age, TICK_MS);

  // Events. A break of less than TROUBLE_AFTER_MS is nobody's business.
  let trouble = null;
  const isWell = () => {
    clearTimeout(trouble);
    trouble = null;
    by("trouble").hidden = true;
  };
  const isBroken = () => {
    trouble ??= setTimeout(() => { by("trouble").hidden = false; }, TROUBLE_AFTER_MS);
  };

  let isWaiting = false;
  let last = "";
  const open = () => {
    const after = last ? `&after=${encodeURIComponent(last)}` : "";
    const events = new EventSource(`/events?status=1${after}`);
    events.onopen = isWell;
    events.onerror = () => {
      isBroken();
      // Refused with a status: a browser does not come again by itself.
      if (events.readyState === EventSource.CLOSED) setTimeout(open, REOPEN_MS);
    };
    events.addEventListener("status", (event) => {
      if (event.lastEventId) last = event.lastEventId;
      isWell();
      const status = JSON.parse(event.data);
      if (status.at) ahead = Date.now() - status.at;
      show(status.regions);
      phaseShown(status.phase, status.waiting_for ? `, waiting for ${status.waiting_for}` : "");
    });
    events.addEventListener("progress", (event) => {
      if (event.lastEventId) last = event.lastEventId;
      const step = JSON.parse(event.data);
      if (step.phase === "done" || step.phase === "failed") {
        if (isWaiting) {
          asked(step.message, step.phase === "failed");
          isWaiting = false;
        }
        return;
      }
      const bytes = step.done_bytes && step.total_bytes ? ` (${Math.floor((100 * step.done_bytes) / step.total_bytes)} %)` : "";
      phaseShown(step.phase, step.message ? `: ${step.message}${bytes}` : "");
    });
  };
  open();

  // What is asked for.
  const asked = (text, isBad = false) => {
    const told = by("asked");
    told.textContent = text;
    told.className = isBad ? "told is-bad" : "told";
  };
  for (const form of document.querySelectorAll("form[data-action]")) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      const version = form.elements.version?.value.trim();
      const body = { id: crypto.randomUUID(), ...(version ? { version } : {}) };
      button.disabled = true;
      isWaiting = true;
      asked("Asked for. What comes of it stands here, and in the chat.");
      try {
        const answer = await fetch(form.action, {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRF-Token": form.elements.csrf.value },
          body: JSON.stringify(body),
        });
        if (!answer.ok) {
          const { error } = await answer.json().catch(() => ({}));
          throw new Error(error ?? `the gateway answers ${answer.status}`);
        }
        form.closest("details").open = false;
        form.closest("details").querySelector("summary").focus();
      } catch (error) {
        isWaiting = false;
        asked(`Not asked for: ${error.message}`, true);
      } finally {
        button.disabled = false;
      }
    });
  }
})();
