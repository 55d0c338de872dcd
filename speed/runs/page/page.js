"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const themes = ["light dark", "light", "dark"];
  let theme = 0;
  byId("theme").addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    document.documentElement.style.colorScheme = themes[theme];
    byId("theme").textContent = ["theme", "light", "dark"][theme];
  });
  const source = byId("data");
  if (!source) return;

  const PAGE = 40, FACETS = ["life", "kind", "outcome", "cause", "guideline"];
  const LIVES = { corpus: "examples of the corpus", lists: "judged lists", seed: "the teacher's examples" };
  let records = [], shown = [], state = { id: "", q: "" }, from = 0, loading = null;

  // Every text of a record becomes a text node here, and nothing else.
  function make(tag, name, ...inside) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...inside.filter((each) => each !== null && each !== undefined && each !== ""));
    return made;
  }

  async function unpack() {
    const packed = Uint8Array.from(atob(JSON.parse(source.textContent)), (each) => each.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const found = JSON.parse(await new Response(stream).text());
    records = found.records;
    for (const record of records) record.words = "";
    byId("browser").hidden = false;
  }

  function wordsOf(record) {
    const texts = [];
    const walk = (value) => {
      if (typeof value === "string") texts.push(value);
      else if (value && typeof value === "object") Object.values(value).forEach(walk);
    };
    if (!record.words) {
      walk(record.steps);
      record.words = texts.join("\n").toLowerCase();
    }
    return record.words;
  }

  const values = (record, facet) => (facet === "guideline" ? record.faults : [record[facet]]);
  function fits(record, but) {
    for (const facet of FACETS)
      if (facet !== but && state[facet] && !values(record, facet).includes(state[facet])) return false;
    return !state.q || state.q.toLowerCase().split(/\s+/).every((word) => wordsOf(record).includes(word));
  }

  function read() {
    const [id, query] = location.hash.startsWith("#/") ? location.hash.slice(2).split("?") : ["", ""];
    const asked = new URLSearchParams(query || "");
    state = { id: decodeURIComponent(id), q: asked.get("q") || "" };
    for (const facet of FACETS) state[facet] = asked.get(facet) || "";
  }

  function address(id) {
    const asked = new URLSearchParams();
    for (const name of ["q", ...FACETS]) if (state[name]) asked.set(name, state[name]);
    const query = asked.toString();
    return "#/" + id.split("/").map(encodeURIComponent).join("/") + (query ? "?" + query : "");
  }

  function facets() {
    const form = byId("filters");
    form.elements.q.value = state.q;
    for (const facet of FACETS) {
      const counts = new Map();
      for (const record of records)
        if (fits(record, facet)) for (const value of values(record, facet)) if (value) counts.set(value, (counts.get(value) || 0) + 1);
      if (state[facet] && !counts.has(state[facet])) counts.set(state[facet], 0);
      const names = [...counts.keys()].sort();
      const options = names.map((name) => {
        const option = make("option", "", `${facet === "life" ? LIVES[name] || name : name} (${counts.get(name)})`);
        option.value = name;
        return option;
      });
      const any = make("option", "", "any");
      any.value = "";
      form.elements[facet].replaceChildren(any, ...options);
      form.elements[facet].value = state[facet];
    }
  }

  function list() {
    shown = records.filter((record) => fits(record));
    const at = shown.findIndex((record) => record.id === state.id);
    if (at >= 0) from = at - (at % PAGE);
    if (from >= shown.length) from = 0;
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${records.length.toLocaleString("en")} records that this page holds whole`;
    byId("list").replaceChildren(
      ...shown.slice(from, from + PAGE).map((record) => {
        const told = [record.id, record.kind, record.outcome, record.cause].filter(Boolean).join(" · ");
        const button = make("button", "", make("span", "words", record.title), make("small", "", told));
        button.type = "button";
        button.addEventListener("click", () => open(record.id, true));
        if (record.id === state.id) button.setAttribute("aria-current", "true");
        return make("li", "", button);
      })
    );
    byId("where").textContent = shown.length ? `${from + 1} to ${Math.min(from + PAGE, shown.length)}` : "none";
    byId("previous").disabled = from === 0;
    byId("next").disabled = from + PAGE >= shown.length;
  }

  function open(id, go) {
    if (location.hash !== address(id)) history.pushState(null, "", address(id));
    read();
    list();
    record(go);
  }

  const tokens = (text) => text.match(/\s+|[\p{L}\p{N}]+|[^]/gu) || [];

  // Longest common subsequence of words; what is alike at both ends needs no table.
  function differences(before, after) {
    const a = tokens(before), b = tokens(after), out = [];
    const add = (kind, text) => {
      if (out.length && out[out.length - 1][0] === kind) out[out.length - 1][1] += text;
      else if (text) out.push([kind, text]);
    };
    let start = 0, ends = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (ends < a.length - start && ends < b.length - start && a[a.length - 1 - ends] === b[b.length - 1 - ends]) ends++;
    const x = a.slice(start, a.length - ends), y = b.slice(start, b.length - ends);
    add("same", a.slice(0, start).join(""));
    if (x.length * y.length > 4e6) {
      add("del", x.join(""));
      add("ins", y.join(""));
    } else {
      const wide = y.length + 1, table = new Uint16Array((x.length + 1) * wide);
      for (let i = x.length - 1; i >= 0; i--)
        for (let j = y.length - 1; j >= 0; j--)
          table[i * wide + j] = x[i] === y[j] ? table[(i + 1) * wide + j + 1] + 1 : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
      let i = 0, j = 0;
      while (i < x.length || j < y.length) {
        if (i < x.length && j < y.length && x[i] === y[j]) add("same", x[i++]), j++;
        else if (i < x.length && (j === y.length || table[(i + 1) * wide + j] >= table[i * wide + j + 1])) add("del", x[i++]);
        else add("ins", y[j++]);
      }
    }
    add("same", ends ? a.slice(a.length - ends).join("") : "");
    return out;
  }

  function changed(before, after) {
    const line = make("p", "words");
    for (const [kind, text] of differences(before, after)) line.append(kind === "same" ? text : make(kind, "", text));
    return line;
  }

  const labelled = (label, inner) => make("div", "", label ? make("span", "label", label) : null, inner);
  const fields = (pairs) => make("div", "", ...pairs.map(([key, text]) => labelled(key, make("p", "words", text))));
  const DRAW = {
    note: (tone, text) => make("p", "remark words " + (tone === "good" || tone === "bad" ? tone : ""), text),
    chips: (label, words) => labelled(label, make("div", "chips", ...words.map((word) => make("span", "chip", word)))),
    text: (label, text) => labelled(label, make("p", "words", text)),
    folded: (label, text) => make("details", "", make("summary", "", label), make("pre", "words folded", text)),
    list: (label, texts, marked) =>
      make("details", "", make("summary", "", label), make("ol", "tasks", ...texts.map((text, number) => make("li", marked.includes(number) ? "drawn" : "", text)))),
    fields: (label, pairs) => labelled(label, fields(pairs)),
    diff: (label, rows) => labelled(label, make("div", "", ...rows.map(([key, before, after]) => labelled(key, changed(before, after))))),
    answers: (label, answers) =>
      make("div", "answers", ...answers.map((answer, number) =>
        make("div", "answer " + (answer.mark === "best" || answer.mark === "worst" ? answer.mark : ""),
          make("header", "", make("strong", "", `${number + 1}${answer.mark ? " " + answer.mark : ""}`), answer.note ? make("span", "lost", answer.note) : null),
          answer.fields ? fields(answer.fields) : make("p", "words", answer.text)))),
    link: (id, text) => {
      const link = make("a", "", text);
      link.href = address(id);
      return records.some((record) => record.id === id) ? link : null;
    },
  };

  function record(go) {
    const found = records.find((each) => each.id === state.id), place = byId("record");
    if (!found) {
      if (state.id) place.replaceChildren(make("p", "hint", `${state.id} is not among the records that this page holds whole.`));
      return;
    }
    const badges = [found.life, found.kind, found.outcome, found.cause, ...found.faults.map((fault) => "fault: " + fault)].filter(Boolean);
    const tones = ["kept", "rejected", "repeat"];
    place.replaceChildren(
      make("h3", "words", found.title),
      make("ul", "badges", ...badges.map((badge) => make("li", tones.includes(badge) ? badge : "", badge)), make("li", "", "row " + found.row)),
      make("ol", "life", ...found.steps.map((step) =>
        make("li", "", make("h4", "", step.name, step.by ? make("span", "", ", by " + step.by) : null),
          ...step.blocks.map(([kind, ...rest]) => (DRAW[kind] ? DRAW[kind](...rest) : null)))))
    );
    if (go && matchMedia("(max-width: 820px)").matches) place.scrollIntoView();
    const current = document.querySelector("#list [aria-current]");
    if (current) {
      const box = document.querySelector(".list"), top = current.offsetTop;
      if (top < box.scrollTop || top + current.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - 40;
    }
  }

  function filtered() {
    const form = byId("filters");
    state.q = form.elements.q.value.trim();
    for (const facet of FACETS) state[facet] = form.elements[facet].value;
    from = 0;
    history.replaceState(null, "", address(state.id));
    facets();
    list();
  }

  function step(by) {
    const at = shown.findIndex((each) => each.id === state.id);
    const next = shown[at < 0 ? from : at + by];
    if (next) open(next.id, false);
  }

  async function start() {
    if (!loading) loading = unpack();
    await loading;
    read();
    facets();
    list();
    record(false);
  }

  const form = byId("filters");
  form.addEventListener("input", filtered);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filtered));
  byId("previous").addEventListener("click", () => { from = Math.max(0, from - PAGE); turned(); });
  byId("next").addEventListener("click", () => { from += PAGE; turned(); });
  function turned() {
    const at = state.id;
    state.id = "";
    list();
    state.id = at;
  }
  document.addEventListener("keydown", (event) => {
    if (!records.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
    } else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    else if (event.key === "/") {
      event.preventDefault();
      form.elements.q.focus();
      form.scrollIntoView({ block: "start" });
    }
  });
  addEventListener("hashchange", () => location.hash.startsWith("#/") && start());
  addEventListener("popstate", () => location.hash.startsWith("#/") && start());
  // Records are unpacked when somebody comes near them, or when the address asks for one.
  if (location.hash.startsWith("#/")) start().then(() => byId("record").scrollIntoView());
  else if ("IntersectionObserver" in window)
    new IntersectionObserver((seen, watch) => {
      if (seen.some((each) => each.isIntersecting)) {
        watch.disconnect();
        start();
      }
    }, { rootMargin: "600px" }).observe(source.ownerDocument.querySelector("#records-near"));
  else start();
})();
