// What the drivers in JavaScript share: as `driver.py`. They are run where `make test-clients` has linked this folder
// to, beside the packages.
import { readFileSync } from "node:fs";

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url)));
export const asked = read("questions.json");
export const [url, route, name] = process.argv.slice(2);
export const endless = `Count without end for ${name}.`;

// cases: by their names in `driver.py`; each returns nothing, or what the user is told where something is refused.
export async function run(packageName, cases) {
  const { version } = read(`../node_modules/${packageName}/package.json`);
  console.log(JSON.stringify({ version }));
  for (const [name, method] of Object.entries(cases)) {
    let outcome;
    try {
      const why = (await method()) ?? "";
      outcome = { case: name, result: why ? "refused" : "works", why };
    } catch (error) {
      outcome = { case: name, result: "fails", why: String(error.stack).slice(0, 3000) };
    }
    console.log(JSON.stringify(outcome));
  }
}

// What it raised.
export async function raises(type, ask) {
  try {
    await ask();
  } catch (error) {
    if (error instanceof type) return error;
    throw error;
  }
  throw new Error("it was answered");
}
