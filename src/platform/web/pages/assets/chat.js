// The chat: shows what the event stream says, and sends what is written until the gateway has it.
"use strict";

(() => {
  const TYPING_MS = 6000;
  const WELCOME_MS = 300;
  const NEAR_PX = 48;
  // A stream begins with so many messages if there are as many.
  const FIRST_MESSAGES = 50;

  const by = (id) => document.getElementById(id);
  const form = by("composer");
  const { chat, csrf } = form.dataset;
  const input = by("text");
  const list = by("messages");
  const page = document.scrollingElement;

  const isAtBottom = () => page.scrollHeight - page.scrollTop - page.clientHeight < NEAR_PX;
  const toBottom = () => { page.scrollTop = page.scrollHeight; };
  // Keeps the end in sight for whoever was there, and everybody else where they read.
  const keepingPlace = (change) => {
    const follows = isAtBottom();
    change();
    if (follows) toBottom();
    else by("down").hidden = false;
  };
  addEventListener("scroll", () => { if (isAtBottom()) by("down").hidden = true; }, { passive: true });
  addEventListener("resize", () => { if (by("down").hidden) toBottom(); });
  by("down").addEventListener("click", toBottom);

  // Read aloud: each block once, when it does not change any more.
  const announce = (text) => {
    const said = document.createElement("span");
    said.textContent = `${text} `;
    by("announce").append(said);
    while (by("announce").childElementCount > 20) by("announce").firstElementChild.remove();
  };

  // --- Messages ---

  const messages = new Map();
  // Own messages that the stream has not shown yet, by their ids.
  const unseen = new Map();
  let first = Infinity;
  let isEarlier = false;

  const line = (className, text) => {
    const made = document.createElement("p");
    made.className = className;
    made.textContent = text;
    return made;
  };
  const AUTHORS = { user: "You", agent: "Agent", gateway: "Gateway" };

  const create = (from) => {
    const item = document.createElement("li");
    item.className = `message from-${from}`;
    const author = document.createElement("h2");
    author.className = "author";
    author.textContent = AUTHORS[from] ?? from;
    const body = document.createElement("div");
    body.className = "body";
    item.append(author, body);
    return { item, author, body, text: "", said: 0, show: null, timer: null };
  };

  const place = (message, number) => {
    message.number = number;
    const next = [...messages.values()].filter((other) => other.number > number).sort((a, b) => a.number - b.number)[0];
    list.insertBefore(message.item, next?.item ?? list.querySelector(".is-unsent"));
    messages.set(number, message);
    first = Math.min(first, number);
    by("welcome").hidden = true;
  };

  const draw = (message) => {
    clearTimeout(message.timer);
    message.timer = null;
    keepingPlace(() => {
      const steady = message.show(message.text);
      message.item.classList.toggle("is-growing", !message.isFinal);
      if (message.from === "user" || message.isOld) return;
      const blocks = message.isFinal ? [...message.body.children] : steady;
      for (const block of blocks.slice(message.said)) announce(block.textContent);
      message.said = Math.max(message.said, blocks.length);
      if (message.isFinal && blocks.length === 0 && message.said === 0) {
        announce(message.text);
        message.said = 1;
      }
    });
  };
  // Many pieces that come together are drawn once.
  const drawSoon = (message) => {
    if (message.isFinal) draw(message);
    else message.timer ??= setTimeout(() => draw(message), 30);
  };

  const size = (bytes) => (bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${Math.floor(bytes / 1024)} KiB` : `${Math.floor(bytes / 1048576)} MiB`);

  const extras = (message, told) => {
    message.item.querySelector(".choices")?.remove();
    message.item.querySelector(".file")?.remove();
    if (told.file) {
      const file = document.createElement("p");
      file.className = "file";
      const link = document.createElement("a");
      link.href = new URL(told.file.url, location.origin).origin === location.origin ? told.file.url : "#";
      link.download = told.file.name;
      link.textContent = told.file.name;
      file.append("File: ", link, told.file.bytes === undefined || told.file.bytes === null ? "" : ` (${size(told.file.bytes)})`);
      message.item.append(file);
    }
    if (told.choices?.length) {
      const choices = document.createElement("div");
      choices.className = "choices";
      choices.setAttribute("role", "group");
      choices.setAttribute("aria-label", "Answers");
      for (const choice of told.choices) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = choice.label;
        button.addEventListener("click", () => {
          for (const other of choices.children) other.disabled = true;
          button.classList.add("is-chosen");
          send(choice.command);
        });
        choices.append(button);
      }
      message.item.append(choices);
    }
  };

  const take = (told, isOld = false) => {
    let message = messages.get(told.number);
    if (!message && told.id && unseen.has(told.id)) {
      message = unseen.get(told.id);
      unseen.delete(told.id);
      isSent(message);
      place(message, told.number);
    }
    if (!message) {
      message = create(told.from);
      keepingPlace(() => place(message, told.number));
    }
    message.from = told.from;
    message.isOld = isOld;
    message.isFinal = told.final;
    const format = told.format === "markdown" ? "markdown" : "plain";
    if (message.format !== format) {
      message.format = format;
      message.body.replaceChildren();
      message.body.classList.toggle("is-plain", format === "plain");
      message.show = window.hermes[format](message.body);
    }
    const at = new Date(told.at);
    const time = message.author.querySelector("time") ?? document.createElement("time");
    time.dateTime = at.toISOString();
    time.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    time.title = at.toLocaleString();
    message.author.append(" ", time);
    message.text = told.text;
    keepingPlace(() => extras(message, told));
    draw(message);
    if (told.from !== "user") typing(false);
  };

  const more = ({ number, at, text, final }) => {
    const message = messages.get(number);
    if (!message) return;
    message.text = message.text.slice(0, at) + text;
    message.isFinal = final;
    typing(false);
    drawSoon(message);
  };

  // --- What the agent does ---

  let typingEnds = null;
  const typing = (isShown) => {
    clearTimeout(typingEnds);
    if (isShown) typingEnds = setTimeout(() => typing(false), TYPING_MS);
    if (by("typing").hidden !== isShown) return;
    keepingPlace(() => { by("typing").hidden = !isShown; });
  };

  // --- The image that answers ---

  let running = null;
  const image = ({ version, generation, pid }) => {
    const before = running;
    running = { version, generation, pid };
    if (!before || (before.generation === generation && before.pid === pid)) return;
    const what = before.version === version ? `restarted ${version}` : `updated ${before.version} → ${version}`;
    const how = before.pid === pid ? "same process" : "a new process";
    const note = document.createElement("li");
    note.className = "note";
    note.append(line("", `${what}, ${how}, while you read`));
    keepingPlace(() => list.append(note));
  };

  // --- The stream ---

  const acts = {
    message: (told) => {
      take(told);
      if (!isEarlier && messages.size >= FIRST_MESSAGES) by("earlier").hidden = false;
    },
    text: more,
    typing: () => typing(true),
    status: image,
  };
  const isBroken = window.live.follow(`chat=${encodeURIComponent(chat)}&status=1`, by("connection"), acts, () => {
    list.setAttribute("aria-busy", "false");
    setTimeout(() => { if (messages.size + unseen.size === 0) by("welcome").hidden = false; }, WELCOME_MS);
  });

  by("earlier").addEventListener("click", async () => {
    const before = first === Infinity ? "" : `&before=${first}`;
    const answer = await fetch(`/api/messages?chat=${encodeURIComponent(chat)}${before}`).catch(() => null);
    if (!answer?.ok) return isBroken();
    const { messages: earlier, more: isMore } = await answer.json();
    const height = page.scrollHeight;
    for (const told of earlier) if (!messages.has(told.number)) take(told, true);
    page.scrollTop += page.scrollHeight - height;
    isEarlier = true;
    by("earlier").hidden = !isMore;
  });

  // --- Sending ---

  const isSent = (message) => {
    message.item.classList.remove("is-unsent");
    message.state?.remove();
  };

  // One after the other, so that they arrive as they were written.
  let queue = Promise.resolve();
  const deliver = async (message) => {
    const { id, text, state } = message;
    const refused = await window.live.post("/api/messages", csrf, { id, chat, text }, (why) => {
      state.textContent = why ? `Not sent yet: ${why}` : "Not sent yet";
    });
    if (refused === null) return isSent(message);
    message.item.classList.add("is-refused");
    state.textContent = `Not sent: ${refused}`;
    state.setAttribute("role", "status");
    return undefined;
  };

  const send = (text) => {
    const message = create("user");
    Object.assign(message, { id: crypto.randomUUID(), text, from: "user", isFinal: true, format: "plain" });
    message.body.classList.add("is-plain");
    message.show = window.hermes.plain(message.body);
    message.state = line("state", "Not sent yet");
    message.item.append(message.state);
    message.item.classList.add("is-unsent");
    unseen.set(message.id, message);
    list.append(message.item);
    by("welcome").hidden = true;
    message.show(text);
    toBottom();
    queue = queue.then(() => deliver(message));
  };

  const grow = () => {
    input.rows = Math.min(8, input.value.split("\n").length);
  };
  input.addEventListener("input", grow);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = "";
    grow();
    input.focus();
    send(text);
  });
})();
