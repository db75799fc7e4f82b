// The operators' console: one page, whose fragment says what it shows, so that a reload comes back to it.
import { Refused, Unreachable, useKey } from "./http.js";
import { clock } from "./text.js";
import { approvals } from "./approvals.js";
import { fleet } from "./fleet.js";
import { session } from "./session.js";
import { sessions } from "./sessions.js";
import { stopMany } from "./stop.js";

const VIEWS = { sessions, session, approvals, fleet };
const [main, lost, told, keys] = ["main", "lost", "told", "key"].map((id) => document.getElementById(id));
let shown = new AbortController();
let lostAt = 0;

/** What a view may ask of the page around it. */
const page = {
  say(text, ...more) {
    told.replaceChildren(text, ...more);
  },

  /** Told by each view of its line to the Dispatcher. */
  connected(yes, error) {
    if (yes === !lostAt) return;
    lostAt = yes ? 0 : Date.now() / 1000;
    lost.textContent = yes
      ? ""
      : `${error.message} That is since ${clock(lostAt)}; what you see is as of then. Trying again.`;
    if (yes) page.say("The server answers again.");
  },

  /** What goes wrong is said; where a key is what is missing, it is asked for. asked: nobody waits for it. */
  async tried(work, { asked = false } = {}) {
    try {
      return await work();
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      if (asked && !(error.status < 500)) return void page.connected(false, error);
      page.say(error.message);
      if (error.status === 401) keys.hidden = false;
      return undefined;
    }
  },
};

/** As it stands where it is malformed: then there is no such session, which is said. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  shown.abort();
  shown = new AbortController();
  const [, name = "", id = "", query = ""] = location.hash.match(/^#([a-z]*)(?:\/([^?]*))?(?:\?(.*))?$/) ?? [];
  const view = Object.hasOwn(VIEWS, name) ? name : "sessions";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
  told.textContent = "";
  main.replaceChildren();
  const { signal } = shown;
  page.tried(() => VIEWS[view]({ main, id: decoded(id), query: new URLSearchParams(query), signal, page }));
  const title = main.querySelector("h1");
  document.title = `${title.textContent}: Midsentence console`;
  title.tabIndex = -1;
  title.focus(); // who hears the page is told where they are
}

keys.onsubmit = (event) => {
  event.preventDefault();
  useKey(keys.key.value);
  keys.hidden = true;
  keys.reset();
  show();
};
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the fragment is the view's
  main.focus();
};
document.getElementById("stop-many").onclick = () => stopMany(page);
window.addEventListener("hashchange", show);
show();
