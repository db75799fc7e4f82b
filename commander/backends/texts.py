"""Text that comes in pieces: characters that were split, and thinking in tags among the words."""

from commander.backends.completions import Piece
from shared.wire import well_formed

# How models think whose server has no other place for it, and what ends that: most `<think>`, Gemini's OpenAI route
# `<thought>`, Bedrock's gpt-oss `<reasoning>`, and gpt-oss as it comes out of a server that does not know its format.
TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",  # Mistral's
    "<seed:think>": "</seed:think>",
    "◁think▷": "◁/think▷",  # Kimi's
    "<|START_THINKING|>": "<|END_THINKING|>",  # Cohere's
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}
_BEGINNINGS = (*TAGS, "</think>")  # the end alone: the thought came in a place of its own
MAX_LEADING = 1024  # characters held back where a tag may still come; more white space than that is an answer


class TextJoiner:
    """Joins a character that a server has split over two deltas (the halves of a UTF-16 pair)."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        text = self._half + text
        self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return well_formed(text[: len(text) - len(self._half)])

    def end(self) -> str:
        half, self._half = self._half, ""
        return well_formed(half)


class ThinkTags:
    """Thinking in tags before the answer, as thoughts. Tags are looked for only where nothing but white space and
    thoughts came before: within an answer they are its words. Only what may still become a tag is held back.

    begun: the text begins within a thought, in front of which the server leaves out `<think>`."""

    def __init__(self, *, begun: bool = False) -> None:
        self._held = ""
        self._answering = False
        self._closing = TAGS["<think>"] if begun else ""  # the tag that ends the thought
        self._thought = begun  # white space between a thought and the answer belongs to neither

    def add(self, text: str) -> list[Piece]:
        if self._answering:
            return [Piece(text)] if text else []
        self._held += text
        pieces = []
        while piece := self._next():
            pieces.append(piece)
        return pieces

    def end(self) -> list[Piece]:
        held, self._held = self._held, ""
        if self._thought and not self._closing:
            held = held.lstrip()
        return [Piece(held, bool(self._closing))] if held else []

    def _next(self) -> Piece | None:
        """What is decided of what is held; None: nothing more."""
        if self._closing:
            return self._thinking()
        begun = self._held.lstrip()
        if tag := next(filter(begun.startswith, _BEGINNINGS), ""):
            self._held, self._closing, self._thought = begun[len(tag) :], TAGS.get(tag, ""), True
            return self._thinking() if self._closing else Piece("", True)
        undecided = len(self._held) <= MAX_LEADING and any(tag.startswith(begun) for tag in _BEGINNINGS)
        if self._answering or undecided:
            return None
        self._answering = True
        words, self._held = begun if self._thought else self._held, ""
        return Piece(words)

    def _thinking(self) -> Piece | None:
        found = self._held.find(self._closing)
        if found >= 0:
            thought, self._held = self._held[:found], self._held[found + len(self._closing) :]
            self._closing = ""
            return Piece(thought, True)  # an empty one too: more may follow it
        kept = _begun(self._held, self._closing)
        thought, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return Piece(thought, True) if thought else None


def _begun(text: str, tag: str) -> int:
    """How many of its last characters may begin the tag."""
    return next((length for length in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-length:])), 0)
