// OpenAI's own SDK for JavaScript, both routes.
import { deepEqual, equal, ok } from "node:assert/strict";

import OpenAI, { APIError, BadRequestError, InternalServerError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import * as z from "zod";

import { asked, endless, raises, route, run, url } from "./driver.mjs";

const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const model = "default";
const Place = z.object({ city: z.string(), people: z.int() });
const now = { type: "object", properties: {} };
const user = (content) => ({ role: "user", content });

async function all(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

const functions = [
  { type: "function", function: { name: "weather", description: "Of today.", parameters: asked.weather } },
  { type: "function", function: { name: "now", parameters: now } },
];
const said = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

async function ask(content, more = {}) {
  const messages = Array.isArray(content) ? content : [user(content)];
  return client.chat.completions.create({ model, messages, ...more });
}
const answered = async (content, more) => (await ask(content, more)).choices[0];
const called = async (content, more) => (await answered(content, more)).message.tool_calls.map((call) => call.function.name);

const chat = {
  async plain() {
    const answer = await ask(asked.said);
    equal(answer.choices[0].message.content, asked.said);
    equal(answer.choices[0].finish_reason, "stop");
    ok(answer.usage.total_tokens > 0);
  },
  async stream() {
    const chunks = await all(ask(asked.said, { stream: true, stream_options: { include_usage: true } }));
    equal(said(chunks), asked.said);
    ok(chunks.at(-1).usage.total_tokens > 0);
    const helper = client.chat.completions.stream({ model, messages: [user(asked.said)] });
    equal(await helper.finalContent(), asked.said);
  },
  async auto() {
    const [call] = (await answered(asked.question, { tools: functions.slice(0, 1) })).message.tool_calls;
    deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "Oslo" }]);
    const helper = client.chat.completions.stream({ model, messages: [user(asked.question)], tools: functions.slice(0, 1) });
    equal((await helper.finalFunctionToolCall()).arguments, call.function.arguments);
  },
  async required() {
    deepEqual(await called(asked.question, { tools: functions.slice(0, 1), tool_choice: "required" }), ["weather"]);
    const named = { type: "function", function: { name: "now" } };
    deepEqual(await called(asked.question, { tools: functions, tool_choice: named }), ["now"]);
    const none = await answered(asked.said, { tools: functions, tool_choice: "none" });
    equal(none.message.content, asked.said);
  },
  async parallel() {
    deepEqual(await called(asked.question, { tools: functions }), ["weather", "now"]);
    deepEqual(await called(asked.question, { tools: functions, parallel_tool_calls: false }), ["weather"]);
  },
  async rounds() {
    const messages = [user(asked.question)];
    for (const content of ["rain", "sun"]) {
      const { message } = await answered(messages, { tools: functions.slice(0, 1), tool_choice: "required" });
      messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content });
    }
    equal((await answered(messages, { tools: functions.slice(0, 1) })).message.content, "weather: sun");
    const cities = [];
    const weather = ({ city }) => (cities.push(city), "fog");
    const tool = { ...functions[0].function, function: weather, parse: JSON.parse };
    const runner = client.chat.completions.runTools({
      model,
      messages: [user(asked.question)],
      tools: [{ type: "function", function: tool }],
    });
    equal(await runner.finalContent(), "weather: fog");
    deepEqual(cities, ["Oslo"]);
  },
  async structured() {
    const response_format = zodResponseFormat(Place, "place");
    const parsed = await client.chat.completions.parse({ model, messages: [user("A place.")], response_format });
    deepEqual(Object.keys(parsed.choices[0].message.parsed), ["city", "people"]);
  },
  async history() {
    const call = { id: "call_1", type: "function", function: { name: "weather", arguments: '{"city": "Rome"}' } };
    const earlier = [
      { role: "system", content: "Be brief." },
      user("How is the weather in Rome?"),
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "call_1", content: "sun" },
    ];
    equal((await answered(earlier)).message.content, "weather: sun");
    const later = [...earlier, { role: "assistant", content: "It is sunny." }, user(asked.said)];
    equal((await answered(later)).message.content, asked.said);
  },
  async image() {
    const parts = [
      { type: "text", text: "What is it?" },
      { type: "image_url", image_url: { url: asked.image } },
    ];
    equal((await answered([user(parts)])).message.content, "I see image_url");
  },
  async abort() {
    for await (const chunk of await ask(endless, { stream: true })) {
      if (chunk.choices[0].delta.content?.includes("3")) break;
    }
  },
  async error() {
    const error = await raises(InternalServerError, () => ask(asked.fails));
    deepEqual([error.status, error.code], [502, "agent_error"]);
    equal((await raises(APIError, () => all(ask(asked.fails_late, { stream: true })))).code, "agent_error");
  },
  async refused() {
    const error = await raises(BadRequestError, () => ask(asked.said, { n: 2 }));
    deepEqual([error.code, error.param], ["unsupported_parameter", "n"]);
    return error.error.message;
  },
  async filtered() {
    const answer = await answered(asked.banned);
    deepEqual([answer.finish_reason, answer.message.content], ["content_filter", asked.let_out]);
    const chunks = await all(ask(asked.banned, { stream: true }));
    deepEqual([chunks.at(-1).choices[0].finish_reason, said(chunks)], ["content_filter", asked.let_out]);
  },
};

const tools = functions.map((tool) => ({ type: "function", strict: false, ...tool.function }));
const respond = (input, more = {}) => client.responses.create({ model, input, ...more });
const respondedCalls = async (input, more) =>
  (await respond(input, more)).output.filter((item) => item.type === "function_call").map((item) => item.name);

const responses = {
  async plain() {
    const answer = await respond(asked.said, { instructions: "Be brief." });
    deepEqual([answer.output_text, answer.status], [asked.said, "completed"]);
    ok(answer.usage.total_tokens > 0);
  },
  async stream() {
    const events = await all(respond(asked.said, { stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    equal(deltas.map((event) => event.delta).join(""), asked.said);
    const helper = client.responses.stream({ model, input: asked.said });
    equal((await helper.finalResponse()).output_text, asked.said);
  },
  async auto() {
    const [call] = (await respond(asked.question, { tools: tools.slice(0, 1) })).output;
    deepEqual([call.name, JSON.parse(call.arguments)], ["weather", { city: "Oslo" }]);
    const helper = client.responses.stream({ model, input: asked.question, tools: tools.slice(0, 1) });
    equal((await helper.finalResponse()).output[0].arguments, call.arguments);
  },
  async required() {
    deepEqual(await respondedCalls(asked.question, { tools: tools.slice(0, 1), tool_choice: "required" }), ["weather"]);
    const named = { type: "function", name: "now" };
    deepEqual(await respondedCalls(asked.question, { tools, tool_choice: named }), ["now"]);
    const allowed = { type: "allowed_tools", mode: "required", tools: [named] };
    deepEqual(await respondedCalls(asked.question, { tools, tool_choice: allowed }), ["now"]);
  },
  async parallel() {
    deepEqual(await respondedCalls(asked.question, { tools }), ["weather", "now"]);
    deepEqual(await respondedCalls(asked.question, { tools, parallel_tool_calls: false }), ["weather"]);
  },
  async rounds() {
    let input = [user(asked.question)];
    for (const output of ["rain", "sun"]) {
      const [call] = (await respond(input, { tools: tools.slice(0, 1), tool_choice: "required" })).output;
      input = [...input, call, { type: "function_call_output", call_id: call.call_id, output }];
    }
    equal((await respond(input, { tools: tools.slice(0, 1) })).output_text, "weather: sun");
    const first = await respond(asked.question, { tools: tools.slice(0, 1) });
    const output = { type: "function_call_output", call_id: first.output[0].call_id, output: "fog" };
    equal((await respond([output], { previous_response_id: first.id })).output_text, "weather: fog");
  },
  async structured() {
    const text = { format: zodTextFormat(Place, "place") };
    const parsed = await client.responses.parse({ model, input: "A place.", text });
    deepEqual(Object.keys(parsed.output_parsed), ["city", "people"]);
  },
  async history() {
    const earlier = [
      { role: "developer", content: "Be brief." },
      user("How is the weather in Rome?"),
      { type: "function_call", call_id: "call_1", name: "weather", arguments: '{"city": "Rome"}' },
      { type: "function_call_output", call_id: "call_1", output: "sun" },
    ];
    equal((await respond(earlier)).output_text, "weather: sun");
    const later = [...earlier, { role: "assistant", content: "It is sunny." }, user(asked.said)];
    equal((await respond(later)).output_text, asked.said);
  },
  async image() {
    const parts = [
      { type: "input_text", text: "What is it?" },
      { type: "input_image", image_url: asked.image, detail: "auto" },
    ];
    equal((await respond([user(parts)])).output_text, "I see image_url");
  },
  async abort() {
    for await (const event of await respond(endless, { stream: true })) {
      if (event.type === "response.output_text.delta" && event.delta.includes("3")) break;
    }
  },
  async error() {
    const failed = await respond(asked.fails);
    deepEqual([failed.status, failed.error.code], ["failed", "agent_error"]);
    equal((await all(respond(asked.fails_late, { stream: true }))).at(-1).type, "response.failed");
  },
  async refused() {
    const error = await raises(BadRequestError, () => respond(asked.said, { truncation: "auto" }));
    deepEqual([error.code, error.param], ["unsupported_parameter", "truncation"]);
    return error.error.message;
  },
  async filtered() {
    const answer = await respond(asked.banned);
    deepEqual([answer.status, answer.incomplete_details.reason], ["incomplete", "content_filter"]);
    equal(answer.output_text, asked.let_out);
  },
  async resume() {
    const stream = await respond(asked.said, { stream: true, background: true });
    const seen = [];
    for await (const event of stream) if (seen.push(event) === 2) break;
    const { id } = seen[0].response;
    const rest = await all(client.responses.retrieve(id, { stream: true, starting_after: seen[1].sequence_number }));
    deepEqual([...seen, ...rest], await all(client.responses.retrieve(id, { stream: true })));
    equal(rest.at(-1).type, "response.completed");
  },
};

await run("openai", { Chat: chat, Responses: responses }[route]);
