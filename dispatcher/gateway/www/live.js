// The live sessions of the whole store, as the Dispatcher pushes them.
import { events } from "./http.js";

const ENDED = 1000; // sessions that are remembered after their end, while they may still be looked at

export class Live {
  rows = new Map(); // by id
  ended = new Map();
  waiting = 0; // of the rows
  elsewhere = 0; // of the rows: what they think and hold back, another instance knows
  looks = 0;
  at = 0; // Unix seconds at the Dispatcher: as of then

  /** Calls `news` after each look with true, and with false once the first rows are there. Throws Refused. */
  async follow(signal, connected, news) {
    let stale = new Set();
    const linked = (yes, error) => {
      if (yes) stale = new Set(this.rows.keys()); // unless they come again, they ended meanwhile
      connected(yes, error);
    };
    for await (const { name, data } of events("operator/live", { signal, connected: linked })) {
      if (name === "sessions") {
        for (const row of data.sessions) {
          stale.delete(row.session_id);
          this.#take(row);
        }
        if (!this.at && this.rows.size === data.sessions.length) news(false);
      } else if (name === "gone") {
        this.rows.delete(data.id);
      } else if (name === "unavailable") {
        connected(false, new Error("The store cannot be reached."));
      } else if (name === "looked") {
        for (const id of stale) this.rows.delete(id);
        stale.clear();
        this.#measure(data.at);
        connected(true);
        news(true);
      }
    }
  }

  #take(row) {
    const before = this.rows.get(row.session_id);
    if (["waiting", "running"].includes(row.state)) {
      this.rows.set(row.session_id, Object.assign(row, { measured: before?.measured, rate: before?.rate ?? 0 }));
      return;
    }
    this.rows.delete(row.session_id);
    this.ended.set(row.session_id, row);
    if (this.ended.size > ENDED) this.ended.delete(this.ended.keys().next().value);
  }

  /** Packets a second, of each since the look before. */
  #measure(at) {
    this.waiting = this.elsewhere = 0;
    for (const row of this.rows.values()) {
      const { measured } = row;
      if (row.state === "waiting") this.waiting++;
      else if (row.step === null) this.elsewhere++;
      if (measured && at > measured.at) row.rate = (row.sequence - measured.sequence) / (at - measured.at);
      if (!measured || at > measured.at) row.measured = { at, sequence: row.sequence };
    }
    this.at = at;
    this.looks++;
  }
}
