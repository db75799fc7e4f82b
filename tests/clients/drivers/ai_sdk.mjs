// What the AI SDK's users do, in whichever version and over whichever provider of models.
import { deepEqual, equal, ok } from "node:assert/strict";
import * as z from "zod";

import { asked, endless, raises } from "./driver.mjs";

const Place = z.object({ city: z.string(), people: z.int() });

// ai: the package. until: makes what ends the rounds after so many. refused: options that no agent honours; the
// provider may pass none on.
export function cases({ ai, model, until, refused }) {
  const cities = [];
  const weather = ai.tool({
    description: "Of today.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => (cities.push(city), "rain"),
  });
  const now = ai.tool({ inputSchema: z.object({}), execute: async () => "noon" });
  // Without `execute` the calls are the answer's end.
  const offered = ai.tool({ description: "Of today.", inputSchema: z.object({ city: z.string() }) });
  const usual = { model, maxRetries: 0 };
  const ask = (prompt, more = {}) => ai.generateText({ ...usual, prompt, ...more });
  const stream = (prompt, more = {}) => ai.streamText({ ...usual, prompt, onError() {}, ...more });
  const called = async (more) => (await ask(asked.question, more)).toolCalls.map((call) => call.toolName);

  return {
    async plain() {
      const answer = await ask(asked.said);
      deepEqual([answer.text, answer.finishReason], [asked.said, "stop"]);
      ok(answer.usage.totalTokens > 0);
    },
    async stream() {
      const result = stream(asked.said);
      let said = "";
      for await (const text of result.textStream) said += text;
      deepEqual([said, await result.finishReason], [asked.said, "stop"]);
      ok((await result.usage).totalTokens > 0);
    },
    async auto() {
      const [call] = (await ask(asked.question, { tools: { weather: offered } })).toolCalls;
      deepEqual([call.toolName, call.input], ["weather", { city: "Oslo" }]);
      const [streamed] = await stream(asked.question, { tools: { weather: offered } }).toolCalls;
      deepEqual(streamed.input, call.input);
    },
    async required() {
      deepEqual(await called({ tools: { weather: offered }, toolChoice: "required" }), ["weather"]);
      const tools = { weather: offered, now };
      deepEqual(await called({ tools, toolChoice: { type: "tool", toolName: "now" } }), ["now"]);
      deepEqual(await called({ tools, toolChoice: "none" }), []);
    },
    async parallel() {
      const answer = await ask(asked.question, { tools: { weather, now }, stopWhen: until(3) });
      equal(answer.text, "weather: rain; now: noon");
    },
    async rounds() {
      cities.length = 0;
      const first = await ask(asked.question, { tools: { weather }, stopWhen: until(3) });
      equal(first.text, "weather: rain");
      const messages = [{ role: "user", content: asked.question }, ...first.response.messages];
      messages.push({ role: "user", content: "And in 'Rome'?" });
      const again = stream(undefined, { messages, tools: { weather }, stopWhen: until(3) });
      equal(await again.text, "weather: rain");
      deepEqual(cities, ["Oslo", "Rome"]);
    },
    async structured() {
      const output = ai.Output.object({ schema: Place });
      deepEqual(Object.keys((await ask("A place.", { output })).output), ["city", "people"]);
      deepEqual(Object.keys((await ai.generateObject({ ...usual, prompt: "A place.", schema: Place })).object), [
        "city",
        "people",
      ]);
    },
    async history() {
      const call = { toolCallId: "call_1", toolName: "weather" };
      const messages = [
        { role: "user", content: "How is the weather in Rome?" },
        { role: "assistant", content: [{ type: "tool-call", ...call, input: { city: "Rome" } }] },
        { role: "tool", content: [{ type: "tool-result", ...call, output: { type: "text", value: "sun" } }] },
      ];
      equal((await ask(undefined, { messages })).text, "weather: sun");
      messages.push({ role: "assistant", content: "It is sunny." }, { role: "user", content: asked.said });
      equal((await ask(undefined, { messages })).text, asked.said);
    },
    async image() {
      const content = [
        { type: "text", text: "What is it?" },
        { type: "image", image: asked.image },
      ];
      equal((await ask(undefined, { messages: [{ role: "user", content }] })).text, "I see image_url");
    },
    async abort() {
      const letGo = new AbortController();
      let said = "";
      for await (const text of stream(endless, { abortSignal: letGo.signal }).textStream) {
        said += text;
        if (said.includes("3")) letGo.abort();
      }
    },
    async error() {
      ok(ai.APICallError.isInstance(await raises(Error, () => ask(asked.fails))));
      const errors = [];
      for await (const part of stream(asked.fails_late).fullStream) if (part.type === "error") errors.push(part.error);
      ok(JSON.stringify(errors).includes("agent_error"), JSON.stringify(errors));
    },
    async filtered() {
      const answer = await ask(asked.banned);
      deepEqual([answer.text, answer.finishReason], [asked.let_out, "content-filter"]);
    },
    ...(refused && {
      async refused() {
        const error = await raises(Error, () => ask(asked.said, refused));
        ok(ai.APICallError.isInstance(error));
        equal(error.statusCode, 400);
        return error.message;
      },
    }),
  };
}
