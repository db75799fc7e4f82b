// What runs, live; what has ended, by search; and what is wrong.
import { json } from "./http.js";
import { Live } from "./live.js";
import { stopOne } from "./stop.js";
import { bounded, count, element, lasted, STILL, table, visible } from "./text.js";
import { troubles } from "./fleet.js";

const PAGE = 50; // rows that are shown at once: a hundred take a browser longer than 50 ms to lay out and paint
const LOOKED_AT = 1000; // ended sessions that are read at once
const ENDED = ["finished", "stopped", "failed"];
const WRONG_MS = 5000; // between questions what is wrong
const COLUMNS = [
  ["Session"],
  ["Stop"],
  ["Packets/s", "number"], // what a telephone has room for: who runs away
  ["State"],
  ["Agent"],
  ["Tenant", "wide"],
  ["Age", "number"],
  ["Packets", "number wide"],
  ["Takeovers", "number wide"],
  ["Thinks", "wide"],
  ["Held", "number wide"],
  ["Tools", "wide"],
  ["Commander", "wide"],
];
// By name: [what it is called, the column that it is by, ...].
const SORTS = {
  newest: ["newest first", "", (one, other) => other.created_at - one.created_at],
  oldest: ["oldest first", "Age", (one, other) => one.created_at - other.created_at],
  fastest: ["most packets a second", "Packets/s", (one, other) => other.rate - one.rate],
  most: ["most packets", "Packets", (one, other) => other.sequence - one.sequence],
  takeovers: ["most takeovers", "Takeovers", (one, other) => other.takeovers - one.takeovers],
  held: ["most held back", "Held", (one, other) => other.held - one.held],
  tools: ["most open calls", "Tools", (one, other) => calls(other) - calls(one)],
};

export async function sessions({ main, query, signal, page }) {
  const wrong = element("section", { className: "wrong", ariaLabel: "What is wrong", hidden: true });
  const form = filters(query);
  const asked = Object.fromEntries(query);
  const ended = ["ended", ...ENDED].includes(asked.show);
  const columns = ended ? COLUMNS : COLUMNS.map((each) => ordering(each, form, asked.sort));
  const { box, body, title } = table("Sessions", columns);
  const pager = element("p");
  main.append(element("h1", {}, "Sessions"), wrong, form, box, pager);
  const list = ended ? endedList(asked, page, signal) : liveList(asked, page, signal);
  const rows = new Rows(body, page);
  let order = [];
  let from = 0;

  /** Rows may stand still while somebody points at them or is among them: nobody shall stop the session beside his. */
  const draw = (still = false) => {
    still &&= body.matches(":hover, :focus-within");
    if (!still) order = list.order();
    from = Math.min(from, Math.max(0, order.length - 1));
    from -= from % PAGE;
    const ids = order.slice(from, from + PAGE);
    rows.show(ids, list);
    title.replaceChildren(...list.title(order.length && from + 1, from + ids.length, order.length), still ? STILL : "");
    earlier.disabled = from === 0;
    later.disabled = from + PAGE >= order.length;
    further.hidden = !list.more?.();
  };
  const button = (text, work) => element("button", { type: "button", onclick: work }, text);
  const earlier = button("Previous rows", () => ((from -= PAGE), draw()));
  const later = button("Next rows", () => ((from += PAGE), draw()));
  const further = button("Look further back", () => page.tried(async () => (await list.further(), draw())));
  pager.append(earlier, later, further);

  draw();
  const followed = list.follow(draw); // the rows are asked for first
  asking(wrong, signal, page);
  await followed;
}

function filters(query) {
  const text = (name, label, properties = {}) =>
    element(
      "label",
      {},
      `${label} `,
      element("input", { name, value: query.get(name) ?? "", size: 14, ...properties }),
    );
  const choice = (name, label, options) =>
    element(
      "label",
      {},
      `${label} `,
      element(
        "select",
        { name },
        ...options.map(([value, shown]) => new Option(shown, value, false, query.get(name) === value)),
      ),
    );
  const form = element(
    "form",
    { className: "filters", ariaLabel: "Which sessions", role: "search" },
    text("q", "Find", { type: "search", title: "in id, agent, tenant, conversation and Commander" }),
    choice("show", "Show", [["live", "live"], ["ended", "ended"], ...ENDED.map((state) => [state, state])]),
    text("reason", "Reason", { title: "of ended ones: of a stop, or a failure's code" }),
    text("day", "Since", { type: "date", title: "of ended ones" }),
    choice(
      "sort",
      "Order",
      Object.entries(SORTS).map(([name, [shown]]) => [name, shown]),
    ),
    element("button", {}, "Show"),
  );
  const go = (event) => {
    event?.preventDefault();
    const given = [...new FormData(form)].filter(([, value]) => value);
    location.hash = `sessions?${new URLSearchParams(given)}`; // so a view can be sent to somebody
  };
  const ended = form.elements.show.value !== "live";
  for (const name of ["reason", "day"]) form.elements[name].parentElement.hidden = !ended;
  form.elements.sort.parentElement.hidden = ended;
  form.onsubmit = go;
  for (const select of form.querySelectorAll("select")) select.onchange = () => go();
  return form;
}

/** A column's heading; where the rows can be ordered by it, a button that does so. */
function ordering([name, className], form, sort) {
  const [by] = Object.entries(SORTS).find(([, [, column]]) => column === name) ?? [];
  if (!by) return [name, className];
  const button = element("button", { type: "button", title: SORTS[by][0] }, name);
  button.onclick = () => ((form.elements.sort.value = by), form.requestSubmit());
  return [button, className, by === sort ? "descending" : null];
}

const calls = (row) => row.running_calls.length + row.waiting_calls.length;

const finds = (row, text) =>
  [row.session_id, row.agent, row.tenant, row.conversation_id, row.commander_id].some((each) =>
    each.toLowerCase().includes(text.toLowerCase()),
  );

function liveList({ q = "", sort }, page, signal) {
  const live = new Live();
  const compare = (SORTS[sort] ?? SORTS.newest)[2];
  let looked = false;
  return {
    row: (id) => live.rows.get(id) ?? live.ended.get(id),
    now: () => live.at || Date.now() / 1000, // before the first look is over
    order() {
      const all = [...live.rows.values()];
      return (q ? all.filter((row) => finds(row, q)) : all).sort(compare).map((row) => row.session_id);
    },
    title(first, last, all) {
      if (!looked) return ["Looking…"];
      const found = q ? `, ${count(all)} of them found` : "";
      const told = `${count(live.rows.size)} live, ${count(live.waiting)} waiting${found}: ${count(first)} to ${count(last)}`;
      if (!live.elsewhere) return [told];
      const unknown = `. What ${count(live.elsewhere)} think and hold back, another instance knows`;
      return [told, element("span", { className: "wide" }, unknown)]; // as the columns are
    },
    // By the second look it is known who is fast: until then nobody can have meant a row of this order.
    follow: (news) => live.follow(signal, page.connected, (whole) => ((looked = whole), news(live.looks > 2))),
  };
}

function endedList({ q = "", show, reason, day }, page, signal) {
  const rows = new Map();
  let cursor;
  let looked = 0;
  const list = {
    row: (id) => rows.get(id),
    now: () => Date.now() / 1000,
    order: () => [...rows.keys()],
    title: (first, last, all) => [
      `${count(all)} ended ones, the latest first, of ${count(looked)} looked at: ${count(first)} to ${count(last)}`,
    ],
    more: () => cursor !== null,
    async further() {
      const asked = new URLSearchParams({ limit: LOOKED_AT });
      for (const state of show === "ended" ? ENDED : [show]) asked.append("state", state);
      if (reason) asked.set("reason", reason);
      if (day) asked.set("since", new Date(`${day}T00:00`).getTime() / 1000);
      if (cursor) asked.set("cursor", cursor);
      const found = await json(`operator/sessions?${asked}`, { signal });
      cursor = found.cursor;
      looked += found.sessions.length;
      for (const row of found.sessions) if (finds(row, q)) rows.set(row.session_id, row);
    },
    async follow(news) {
      await list.further();
      news();
    },
  };
  return list;
}

/** The rows of the table, each changed where it stands, so that nobody loses his place. */
class Rows {
  #shown = new Map(); // by id

  constructor(body, page) {
    Object.assign(this, { body, page });
  }

  show(ids, list) {
    const before = this.#shown;
    this.#shown = new Map(ids.map((id) => [id, before.get(id) ?? this.#made(id)]));
    for (const [id, row] of before) if (!this.#shown.has(id)) row.remove();
    let at = this.body.firstElementChild;
    for (const [id, row] of this.#shown) {
      if (row === at) at = at.nextElementSibling;
      else this.body.insertBefore(row, at);
      this.#fill(row, list.row(id), list.now());
    }
  }

  #made(id) {
    const link = element("a", { href: `#session/${encodeURIComponent(id)}`, title: id }, id.slice(0, 10));
    const stop = element("button", { type: "button", ariaLabel: `Stop ${id.slice(0, 10)}` }, "Stop…");
    stop.onclick = () => stopOne(this.page, id);
    const cells = COLUMNS.map(([, className = ""]) => element("td", { className }));
    cells[0].append(link);
    cells[1].append(stop);
    return element("tr", {}, ...cells);
  }

  #fill(row, session, now) {
    if (!session) return; // dropped while it was shown
    const live = !session.ended_at;
    const running = session.state === "running";
    const why = session.reason || session.code;
    const tools = [...session.running_calls, ...session.waiting_calls.map((name) => `${name} (to be approved)`)];
    const texts = [
      live && session.rate !== undefined ? session.rate.toFixed(session.rate < 10 ? 1 : 0) : "",
      why ? `${session.state}: ${why}` : session.state,
      session.agent,
      session.tenant,
      lasted((session.ended_at ?? now) - session.created_at),
      count(session.sequence),
      count(session.takeovers),
      running ? (session.step ?? "elsewhere") : "",
      running ? (session.held === null ? "elsewhere" : count(session.held)) : "",
      tools.join(", "),
      session.commander_id,
    ];
    texts.forEach((text, n) => {
      const shown = bounded(visible(text), 60);
      const cell = row.cells[n + 2];
      if (cell.textContent !== shown) cell.textContent = shown;
    });
    row.cells[1].firstChild.disabled = !live;
  }
}

/** What this instance knows to be wrong, asked again and again. */
async function asking(section, signal, page) {
  while (!signal.aborted) {
    const found = await page.tried(() => troubles(signal), { asked: true });
    if (found && JSON.stringify(found) !== section.dataset.shown) {
      section.dataset.shown = JSON.stringify(found);
      const list = element("ul", {}, ...found.map((text) => element("li", {}, visible(text))));
      section.replaceChildren("Wrong at the instance that answers:", list);
      section.hidden = !found.length;
    }
    await new Promise((done) => setTimeout(done, WRONG_MS));
  }
}
