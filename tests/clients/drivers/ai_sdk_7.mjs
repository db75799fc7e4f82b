// The AI SDK 7, over its providers for OpenAI and for what is compatible.
import * as ai from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenResponses } from "@ai-sdk/open-responses";

import { cases } from "./ai_sdk.mjs";
import { route, run, url } from "./driver.mjs";

const openai = createOpenAI({ baseURL: url, apiKey: "none" });
const compatible = createOpenAICompatible({
  name: "pair",
  baseURL: url,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const truncated = { providerOptions: { openai: { truncation: "auto" } } };
const models = {
  Responses: [openai("default"), truncated],
  Chat: [openai.chat("default"), { providerOptions: { openai: { logprobs: true } } }],
  "openai-compatible": [compatible("default"), { providerOptions: { pair: { textVerbosity: "low" } } }],
  "open-responses": [createOpenResponses({ name: "pair", url: `${url}/responses` })("default")],
};
const [model, refused] = models[route];

await run("ai", cases({ ai, model, until: ai.isStepCount, refused }));
