// The AI SDK 6, over its providers for OpenAI and for what is compatible.
import * as ai from "ai-6";
import { createOpenAI } from "@ai-sdk/openai-6";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible-6";

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
};
const [model, refused] = models[route];

await run("ai-6", cases({ ai, model, until: ai.stepCountIs, refused }));
