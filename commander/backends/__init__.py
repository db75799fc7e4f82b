"""The agents that come with the Commander, each with its section of the settings: a local model, a server that speaks
OpenAI's Chat Completions, scripts.

Imports: commander.agent, shared.
Libraries: httpx2, msgspec, openai, pydantic, structlog, xllamacpp.
"""
