// What a session's log says, entry by entry: what the model wrote, what became of it, and a line for each entry.

const COMMON = new Set(["at", "generation", "sequence", "timestamp", "released", "decided", "redacted_by"]);
const KEPT = 2000; // UTF-16 units of an entry's text that are kept; all of it can be asked for

export class Account {
  entries = []; // {offset, at, kind, text, size}
  // [kind, text, rules]: `out` was let out, `not` was not, `put` stood in its place for the user, by these rules
  wrote = [];
  thoughts = []; // [step, text], as long as a step goes on
  approvals = new Map(); // by call: what waits for somebody's decision
  held = ""; // what is not decided on yet; after a stop, what never will be
  #called = new Map(); // by call: since when it runs
  #decided = 0; // characters (code points), as the Dispatcher counts them

  take({ id, name, data }) {
    const text = told(name, data) + this.#call(name, data);
    this.entries.push({ offset: Number(id), at: data.at, kind: name, text: text.slice(0, KEPT), size: text.length });
    if (name === "content") this.held += data.text;
    if (name === "thought") this.#thought(data);
    const raw = data.decided > this.#decided ? this.#cut(data.decided - this.#decided) : "";
    this.#decided = Math.max(this.#decided, data.decided);
    this.#became(raw, data.released, (data.redacted_by ?? []).join(", "));
  }

  #thought({ step_name, delta }) {
    const last = this.thoughts.at(-1);
    if (last && last[0] === step_name) last[1] += delta;
    else this.thoughts.push([step_name, delta]);
  }

  /** What waits and what runs; answers with how long a call took. */
  #call(name, data) {
    if (name === "approval") this.approvals.set(data.call_id, { ...data, arguments: JSON.parse(data.arguments_json) });
    if (name === "decision" || name === "tool_result") this.approvals.delete(data.call_id);
    if (name === "call" || name === "started") this.#called.set(data.call_id, data.at);
    if (name !== "tool_result" || !this.#called.has(data.call_id)) return "";
    const lasted = data.at - this.#called.get(data.call_id);
    this.#called.delete(data.call_id);
    return `, after ${lasted.toFixed(6)} s`;
  }

  /** That many characters off what is held. */
  #cut(characters) {
    let at = 0;
    if (/[\ud800-\udfff]/.test(this.held)) {
      for (; characters > 0 && at < this.held.length; characters--) at += this.held.codePointAt(at) > 0xffff ? 2 : 1;
    } else {
      at = characters;
    }
    const cut = this.held.slice(0, at);
    this.held = this.held.slice(at);
    return cut;
  }

  /** A rule has put `released` in the place of `raw`: what both begin and end with was let out as it was. */
  #became(raw, released, rules) {
    const most = Math.min(raw.length, released.length);
    let begin = 0;
    while (begin < most && raw[begin] === released[begin]) begin++;
    let end = 0;
    while (end < most - begin && raw.at(-1 - end) === released.at(-1 - end)) end++;
    this.#add("out", raw.slice(0, begin));
    this.#add("not", raw.slice(begin, raw.length - end), rules);
    this.#add("put", released.slice(begin, released.length - end), rules);
    this.#add("out", raw.slice(raw.length - end));
  }

  #add(kind, text, rules = "") {
    if (!text) return;
    const last = this.wrote.at(-1);
    if (last?.[0] === kind && last[2] === rules) last[1] += text;
    else this.wrote.push([kind, text, rules]);
  }
}

const by = ({ redacted_by }) => (redacted_by?.length ? ` (redacted by ${redacted_by.join(", ")})` : "");

/** An entry in words: the fields of its kind that say something. */
export function told(kind, data) {
  switch (kind) {
    case "thought":
      return `${data.step_name}: ${data.delta}`;
    case "content":
      return data.released === data.text ? data.text : `${data.text} ⟶ ${data.released || "nothing"}${by(data)}`;
    case "text":
      return `let out: ${data.released}${by(data)}`;
    default:
      return Object.entries(data)
        .filter(([name, value]) => !COMMON.has(name) && ![false, "", null].includes(value))
        .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
        .join(", ");
  }
}
