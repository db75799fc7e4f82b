"""A policy that a small model decides: a linear classifier of offensive English, offline, some milliseconds a text.

It comes with the package `alt-profanity-check` (MIT; 280 MB with scikit-learn and SciPy), which the project itself does
not need: `pip install alt-profanity-check` where the Dispatcher runs, start it in this folder (or copy this file into
its working folder), and let DISPATCHER_POLICIES name `profanity.toml` beside it, or a folder with a copy of it.
"""

import asyncio

from profanity_check import predict_prob

from dispatcher.policies.questions import Question

THRESHOLD = 0.9  # of the probability: insults get 0.95 and more, a heated sentence half of it
CONTEXT = 80  # characters of what came before: a packet may end in the middle of a word


async def decent(question: Question) -> bool:
    """True: it may pass. The model computes in a thread, so that nothing else waits for it."""
    texts = [question.context[-CONTEXT:] + text for text in question.texts]
    probabilities = await asyncio.to_thread(predict_prob, texts)
    return bool(max(probabilities) < THRESHOLD)
