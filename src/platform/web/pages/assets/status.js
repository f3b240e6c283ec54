// Keeps the status page up to date: puts regions in the place of what was there, and ages what has a time.
"use strict";

(() => {
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

  // A request of this page is not answered yet, and nothing has been begun since.
  let isWaiting = false;
  let isBegun = false;
  let phase = "serving";
  const stepped = (step) => {
    const isEnd = step.phase === "done" || step.phase === "failed";
    if (isWaiting && (isEnd || (step.phase === "refused" && !isBegun))) {
      isWaiting = false;
      asked(step.message, step.phase !== "done");
    }
    if (isEnd) phaseShown(phase === "probation" ? phase : "serving", "");
    if (isEnd || step.phase === "refused") return;
    isBegun = true;
    const bytes = step.done_bytes && step.total_bytes ? ` (${Math.floor((100 * step.done_bytes) / step.total_bytes)} %)` : "";
    phaseShown(step.phase, step.message ? `: ${step.message}${bytes}` : "");
  };
  window.live.follow("status=1", by("trouble"), {
    status: (status) => {
      if (status.at) ahead = Date.now() - status.at;
      phase = status.phase;
      show(status.regions);
      phaseShown(phase, status.waiting_for ? `, waiting for ${status.waiting_for}` : "");
    },
    progress: stepped,
  });

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
      [isWaiting, isBegun] = [true, false];
      asked("Asked for. What comes of it stands here, and in the chat.");
      const refused = await window.live.post(form.action, form.elements.csrf.value, body, (why) => {
        if (isWaiting && why) asked(`Not asked for yet: ${why}`, true);
      });
      button.disabled = false;
      if (refused !== null) {
        isWaiting = false;
        asked(`Not asked for: ${refused}`, true);
        return;
      }
      if (isWaiting) asked("Asked for. What comes of it stands here, and in the chat.");
      form.closest("details").open = false;
      form.closest("details").querySelector("summary").focus();
    });
  }
})();
