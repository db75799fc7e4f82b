// The tool calls that wait for somebody's approval, with what would run.
import { json, request } from "./http.js";
import { clock, element, terms, visible } from "./text.js";

const LOOK_MS = 2000;

export async function approvals({ main, signal, page }) {
  const list = element("ul");
  const none = element("p", {}, "Looking…");
  main.append(element("h1", {}, "Approvals"), none, list);
  const waiting = new Waiting(list, page);
  while (!signal.aborted) {
    const found = await page.tried(() => all(signal), { asked: true });
    if (found) {
      page.connected(true);
      waiting.show(found);
      none.textContent = found.length ? "" : "No call waits for an approval.";
    }
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

/** Calls in a list, each left where it stands for as long as it waits. */
export class Waiting {
  #shown = new Map(); // by session and call

  constructor(list, page) {
    Object.assign(this, { list, page });
  }

  show(calls) {
    const keys = calls.map((call) => JSON.stringify([call.session_id, call.call_id]));
    calls.forEach((call, n) => {
      if (this.#shown.has(keys[n])) return;
      this.#shown.set(keys[n], item(call, this.page));
      this.list.append(this.#shown.get(keys[n]));
    });
    const still = new Set(keys);
    for (const [key, made] of this.#shown) if (!still.has(key)) (made.remove(), this.#shown.delete(key));
  }
}

async function all(signal) {
  const found = [];
  for (let cursor = ""; cursor !== null;) {
    const page = await json(`operator/approvals${cursor && `?cursor=${encodeURIComponent(cursor)}`}`, { signal });
    found.push(...page.approvals);
    cursor = page.cursor;
  }
  return found;
}

function item(call, page) {
  const path = ["sessions", call.session_id, "calls", call.call_id].map(encodeURIComponent).join("/");
  const note = element("input", { autocomplete: "off" });
  const name = visible(call.tool_name);
  const made = element(
    "li",
    {},
    element("h2", {}, `${name}, of ${visible(call.agent)}`),
    element(
      "pre",
      { tabIndex: 0, role: "region", ariaLabel: `Arguments of ${name}` },
      visible(JSON.stringify(call.arguments, null, 1)),
    ),
    terms([
      ["Session", element("a", { href: `#session/${encodeURIComponent(call.session_id)}` }, call.session_id)],
      ["Who decides", call.approval],
      ["Until", clock(call.expires_at)],
      ["Hash", call.arguments_sha256],
    ]),
    element("label", {}, "Note ", note),
  );
  for (const decision of ["approve", "deny"]) {
    const body = () => ({ decision, arguments_sha256: call.arguments_sha256, ...(note.value && { note: note.value }) });
    const decide = () =>
      page.tried(async () => {
        await request(`operator/${path}/decision`, { body: body() });
        page.say(`${name}: ${decision === "approve" ? "approved" : "denied"}.`);
        made.remove();
      });
    made.append(element("button", { type: "button", onclick: decide }, decision === "approve" ? "Approve" : "Deny"));
  }
  return made;
}
