// The gateway as both pages see it: what it tells, over every break, and what is posted, until it has it.
"use strict";

window.live = (() => {
  const TROUBLE_AFTER_MS = 2000;
  const REOPEN_MS = 1000;
  const RETRY_MS = [100, 200, 500, 1000, 2000, 5000];

  const wait = (time) => new Promise((go) => setTimeout(go, time));

  // Opens /events with `query` and hands the data of each event to the function of its name. A break of less than
  // TROUBLE_AFTER_MS is nobody's business; after that `banner` is shown.
  const follow = (query, banner, acts, opened = () => {}) => {
    let trouble = null;
    const isWell = () => {
      clearTimeout(trouble);
      trouble = null;
      banner.hidden = true;
    };
    const isBroken = () => {
      trouble ??= setTimeout(() => { banner.hidden = false; }, TROUBLE_AFTER_MS);
    };
    let last = "";
    const open = () => {
      const after = last ? `&after=${encodeURIComponent(last)}` : "";
      const events = new EventSource(`/events?${query}${after}`);
      events.onopen = () => {
        isWell();
        opened();
      };
      events.onerror = () => {
        isBroken();
        // Refused with a status: a browser does not come again by itself.
        if (events.readyState === EventSource.CLOSED) setTimeout(reopen, REOPEN_MS);
      };
      for (const [name, act] of Object.entries(acts)) {
        events.addEventListener(name, (event) => {
          if (event.lastEventId) last = event.lastEventId;
          isWell();
          act(JSON.parse(event.data));
        });
      }
    };
    const reopen = async () => {
      const answer = await fetch("/api/status").catch(() => null);
      if (answer?.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
      else open();
    };
    open();
    return isBroken;
  };

  // What is no word of the gateway on this very message is tried again: a proxy answers for a gateway that is being replaced.
  const isRefusal = (status) => status < 500 && ![408, 429].includes(status);

  // Posts until the gateway has it; the id in `body` makes that once. Returns why it is refused, or null. `waits` is told
  // why it is tried again, where the gateway says so.
  const post = async (path, csrf, body, waits) => {
    for (let attempt = 0; ; attempt += 1) {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
        body: JSON.stringify(body),
      }).catch(() => null);
      if (answer?.ok) return null;
      const { error } = (await answer?.json().catch(() => null)) ?? {};
      if (answer && isRefusal(answer.status)) return error ?? `the gateway answers ${answer.status}`;
      waits(error);
      const asked = Number(answer?.headers.get("Retry-After")) * 1000;
      await wait(asked || RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
    }
  };

  return { follow, post };
})();
