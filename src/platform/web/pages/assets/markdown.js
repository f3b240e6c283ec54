// Shows Markdown as it grows. Elements are made one by one and text is put in as text, so nothing that is written can
// become markup. What CommonMark has beyond this stays as it was written.
"use strict";

window.hermes = (() => {
  const DEPTH_MAX = 6;
  // What is longer is shown without inline marks: looking for them would take too long.
  const INLINE_MAX = 64 * 1024;
  const LINK_MAX = 2048;
  const SCHEMES = ["http:", "https:", "mailto:"];
  const PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

  const element = (name, children = []) => {
    const made = document.createElement(name);
    made.append(...children);
    return made;
  };
  const isSpace = (character) => character === undefined || /\s/.test(character);
  const isWord = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);

  // An address that may be opened, or null.
  const address = (text) => {
    if (!/^(https?:|mailto:)/i.test(text)) return null;
    try {
      const url = new URL(text);
      return SCHEMES.includes(url.protocol) ? url.href : null;
    } catch {
      return null;
    }
  };

  const link = (to, children) => {
    const made = element("a", children);
    made.href = to;
    made.rel = "noopener noreferrer nofollow";
    made.target = "_blank";
    return made;
  };

  // Where a mark closes that opens before `from`; -1 if it does not.
  const closes = (text, mark, from) => {
    for (let at = text.indexOf(mark, from); at >= 0; at = text.indexOf(mark, at + 1)) {
      const after = text[at + mark.length];
      if (at === from || isSpace(text[at - 1])) continue;
      if (mark === "*" && (after === "*" || text[at - 1] === "*")) continue;
      if (mark.startsWith("_") && isWord(after)) continue;
      return at;
    }
    return -1;
  };

  // The end of a run of backticks as long as the one before `from`; -1 if there is none.
  const codeEnds = (text, length, from) => {
    for (let at = text.indexOf("`", from); at >= 0; at = text.indexOf("`", at)) {
      let end = at;
      while (text[end] === "`") end += 1;
      if (end - at === length) return at;
      at = end;
    }
    return -1;
  };

  // `[label](address)` at `from`, where the bracket is.
  const linkAt = (text, from) => {
    const until = Math.min(text.length, from + LINK_MAX);
    let depth = 0;
    let close = -1;
    for (let at = from; at < until; at += 1) {
      if (text[at] === "\\") at += 1;
      else if (text[at] === "[") depth += 1;
      else if (text[at] === "]" && (depth -= 1) === 0) {
        close = at;
        break;
      }
    }
    if (close < 0 || text[close + 1] !== "(") return null;
    const match = /^\(\s*<?((?:[^\s<>()]|\([^\s<>()]*\))*)>?(?:\s+"[^"\n]*")?\s*\)/.exec(text.slice(close + 1, close + 1 + LINK_MAX));
    const to = match && address(match[1]);
    return to && { label: text.slice(from + 1, close), to, end: close + 1 + match[0].length };
  };

  const MARKS = [["***", null], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

  // The nodes of a text with inline marks.
  const inline = (text, depth = 0, inLink = false) => {
    const nodes = [];
    let plain = "";
    const put = (node) => {
      if (plain) nodes.push(document.createTextNode(plain));
      plain = "";
      if (node) nodes.push(node);
    };
    if (depth > DEPTH_MAX || text.length > INLINE_MAX) {
      plain = text;
      put(null);
      return nodes;
    }
    // Marks that do not close from here on, so that they are looked for once.
    const dead = new Set();
    const hasLinks = !inLink && text.includes("](");
    let at = 0;
    while (at < text.length) {
      const character = text[at];
      if (character === "\\" && PUNCTUATION.includes(text[at + 1] ?? " ")) {
        plain += text[at + 1];
        at += 2;
        continue;
      }
      if (character === "`") {
        let length = 1;
        while (text[at + length] === "`") length += 1;
        const mark = "`".repeat(length);
        const end = dead.has(mark) ? -1 : codeEnds(text, length, at + length);
        if (end < 0) {
          dead.add(mark);
          plain += mark;
          at += length;
        } else {
          const code = text.slice(at + length, end).replace(/\n/g, " ");
          put(element("code", [/^ .*[^ ].* $/.test(code) ? code.slice(1, -1) : code]));
          at = end + length;
        }
        continue;
      }
      if (hasLinks && (character === "[" || (character === "!" && text[at + 1] === "["))) {
        const found = linkAt(text, character === "!" ? at + 1 : at);
        if (found) {
          const label = inline(found.label, depth + 1, true);
          put(link(found.to, label.length ? label : [found.to]));
          at = found.end;
          continue;
        }
      }
      if (!inLink && (character === "h" || character === "<") && !isWord(text[at - 1])) {
        const match = /^<?(https?:\/\/[^\s<>"`*]+)/.exec(text.slice(at, at + LINK_MAX));
        const shown = match && match[1].replace(/[.,;:!?)'\]]+$/, "");
        const to = shown && address(shown);
        if (to) {
          const isBracketed = character === "<" && text[at + match[0].length] === ">";
          if (character === "<" && !isBracketed) plain += "<";
          put(link(to, [isBracketed ? match[1] : shown]));
          at += isBracketed ? match[0].length + 1 : shown.length + (character === "<" ? 1 : 0);
          continue;
        }
      }
      const [mark, name] = MARKS.find(([known]) => text.startsWith(known, at)) ?? [];
      const opens = mark && !dead.has(mark) && !isSpace(text[at + mark.length]) && !(mark[0] === "_" && isWord(text[at - 1]));
      if (opens) {
        const end = closes(text, mark, at + mark.length);
        if (end >= 0) {
          const inner = inline(text.slice(at + mark.length, end), depth + 1, inLink);
          put(name ? element(name, inner) : element("em", [element("strong", inner)]));
          at = end + mark.length;
          continue;
        }
        dead.add(mark);
      }
      plain += mark ?? character;
      at += mark ? mark.length : 1;
    }
    put(null);
    return nodes;
  };

  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
  const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
  const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
  const QUOTE = /^ {0,3}> ?/;
  const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
  const RULER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
  const isBlank = (line) => line.trim() === "";
  const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
  const isTable = (lines, at) => lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && RULER.test(lines[at + 1]);

  // How many lines from `at` on belong to the block that begins there, and what it is.
  const extent = (lines, at) => {
    const line = lines[at];
    const fence = FENCE.exec(line);
    let end = at + 1;
    if (fence) {
      const closing = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}[ \\t]*$`);
      while (end < lines.length && !closing.test(lines[end])) end += 1;
      return { kind: "code", end: Math.min(end + 1, lines.length) };
    }
    if (HEADING.test(line)) return { kind: "heading", end };
    if (RULE.test(line)) return { kind: "rule", end };
    if (QUOTE.test(line)) {
      while (end < lines.length && QUOTE.test(lines[end])) end += 1;
      return { kind: "quote", end };
    }
    const item = ITEM.exec(line);
    if (item) {
      const kind = /\d/.test(item[2]) ? "ol" : "ul";
      for (; end < lines.length; end += 1) {
        const next = ITEM.exec(lines[end]);
        if (isBlank(lines[end])) {
          const after = lines.slice(end).findIndex((later) => !isBlank(later));
          const follows = after >= 0 ? lines[end + after] : "";
          if (!/^ {2,}|^\t/.test(follows) && !ITEM.test(follows)) break;
        } else if (next && (/\d/.test(next[2]) ? "ol" : "ul") !== kind && next[1].length < 2) break;
        else if (!next && !/^ {2,}|^\t/.test(lines[end]) && (isBlank(lines[end - 1]) || begins(lines[end]))) break;
      }
      while (isBlank(lines[end - 1])) end -= 1;
      return { kind, end };
    }
    if (isTable(lines, at)) {
      while (end < lines.length && !isBlank(lines[end]) && lines[end].includes("|")) end += 1;
      return { kind: "table", end };
    }
    while (end < lines.length && !isBlank(lines[end]) && !begins(lines[end]) && !isTable(lines, end)) end += 1;
    return { kind: "p", end };
  };

  const split = (source) => {
    const lines = source.split("\n");
    const blocks = [];
    for (let at = 0; at < lines.length; ) {
      if (isBlank(lines[at])) {
        at += 1;
        continue;
      }
      const { kind, end } = extent(lines, at);
      blocks.push({ kind, lines: lines.slice(at, end), source: lines.slice(at, end).join("\n") });
      at = end;
    }
    return blocks;
  };

  const list = ({ kind, lines }, depth) => {
    const items = [];
    for (const line of lines) {
      const match = ITEM.exec(line);
      if (match && (items.length === 0 || match[1].length < 2)) items.push({ indent: match[0].length, lines: [line.slice(match[0].length)] });
      else {
        const item = items.at(-1);
        const margin = Math.min(item.indent, line.length - line.trimStart().length);
        item.lines.push(line.replace(/^\t/, "    ").slice(margin));
      }
    }
    const made = element(kind, items.map((item) => {
      const blocks = split(item.lines.join("\n"));
      const isTight = blocks.length > 0 && blocks[0].kind === "p";
      const first = isTight ? inline(blocks.shift().source) : [];
      return element("li", [...first, ...blocks.map((block) => render(block, depth + 1))]);
    }));
    const start = kind === "ol" ? parseInt(lines[0], 10) : 1;
    if (start !== 1) made.start = start;
    return made;
  };

  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));

  const table = ({ lines }) => {
    const row = (line, name) => element("tr", cells(line).map((cell) => element(name, inline(cell))));
    const head = element("thead", [row(lines[0], "th")]);
    const body = element("tbody", lines.slice(2).map((line) => row(line, "td")));
    const scroll = element("div", [element("table", [head, body])]);
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    return scroll;
  };

  const codeOf = ({ lines }) => {
    const [, mark] = FENCE.exec(lines[0]);
    const last = lines.length > 1 ? lines.at(-1).trim() : "";
    const isClosed = last.length >= mark.length && [...last].every((character) => character === mark[0]);
    return lines.slice(1, isClosed ? -1 : undefined).join("\n");
  };

  const render = (block, depth = 0) => {
    const { kind, lines, source } = block;
    if (depth > DEPTH_MAX) return element("p", [source]);
    if (kind === "code") {
      const pre = element("pre", [element("code", [codeOf(block)])]);
      pre.tabIndex = 0;
      return pre;
    }
    if (kind === "heading") {
      const [, marks, text] = HEADING.exec(lines[0]);
      // The page has its own headings above.
      return element(`h${Math.min(6, marks.length + 2)}`, inline(text ?? ""));
    }
    if (kind === "rule") return element("hr");
    if (kind === "quote") {
      const inner = split(lines.map((line) => line.replace(QUOTE, "")).join("\n"));
      return element("blockquote", inner.map((part) => render(part, depth + 1)));
    }
    if (kind === "ul" || kind === "ol") return list(block, depth);
    if (kind === "table") return table(block);
    return element("p", inline(source));
  };

  // Makes the children of `parent` those of `wanted`, and leaves what is the same, so that a selection stays.
  const patch = (parent, wanted) => {
    let at = 0;
    for (; at < wanted.length; at += 1) {
      const [is, should] = [parent.childNodes[at], wanted[at]];
      if (!is) parent.append(should);
      else if (is.isEqualNode(should)) continue;
      else if (is.nodeType === Node.TEXT_NODE && should.nodeType === Node.TEXT_NODE && should.data.startsWith(is.data)) {
        is.appendData(should.data.slice(is.data.length));
      } else is.replaceWith(should);
    }
    while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
  };

  // Shows Markdown in `container`; to be called with the whole text each time it has changed. Returns the elements of the
  // blocks that will not change any more while the text only grows.
  const markdown = (container) => {
    let shown = [];
    return (text) => {
      const blocks = split(text);
      blocks.forEach((block, index) => {
        const before = shown[index];
        const is = container.children[index];
        if (before && before.kind === block.kind && before.source === block.source) return;
        if (before && before.kind === "p" && block.kind === "p") patch(is, inline(block.source));
        else if (before && before.kind === "code" && block.kind === "code") {
          patch(is.firstChild, [document.createTextNode(codeOf(block))]);
        } else if (is) is.replaceWith(render(block));
        else container.append(render(block));
      });
      while (container.children.length > blocks.length) container.lastElementChild.remove();
      shown = blocks;
      return [...container.children].slice(0, -1);
    };
  };

  // Shows text as it is.
  const plain = (container) => {
    const shown = document.createTextNode("");
    container.append(shown);
    return (text) => {
      if (text.startsWith(shown.data)) shown.appendData(text.slice(shown.data.length));
      else shown.data = text;
      return [];
    };
  };

  return { markdown, plain };
})();
