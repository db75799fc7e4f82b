"""What of a message is no text: images, sounds and files, which are passed on and never fetched or looked into."""

import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dispatcher.gateway.errors import HttpError
from shared.records import Message

MAX_PARTS = 20  # of a request
FEATURES = {"image_url": "images", "input_audio": "audio", "file": "files"}  # by a part's type on Chat Completions


class ImageUrl(msgspec.Struct, frozen=True, omit_defaults=True):
    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct, frozen=True):
    data: str
    format: str


class FilePart(msgspec.Struct, frozen=True, omit_defaults=True):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class Part(msgspec.Struct, frozen=True):
    """Of either of OpenAI's protocols; on Responses an image's and a file's fields stand a level less deep."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    detail: str | None = None
    input_audio: InputAudio | None = None
    file: FilePart | None = None
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


def contents(parts: Sequence[Part], where: str, text_types: Sequence[str]) -> tuple[str, str]:
    """The text of a message's parts, and all of them in Chat Completions' form as `Message.parts_json`; that is empty
    where there is nothing but text. Raises HttpError 400.
    """
    read = [_read(part, f"{where}[{n}]", text_types) for n, part in enumerate(parts)]
    texts = [part["text"] for part in read if part["type"] == "text"]
    rest = "" if len(texts) == len(read) else msgspec.json.encode(read).decode()
    return "\n".join(texts), rest


def parts_of(message: Message) -> list[dict[str, Any]]:
    """In Chat Completions' form; empty: text alone."""
    parts: list[dict[str, Any]] = msgspec.json.decode(message.parts_json or "[]")
    return parts


def check_count(messages: Iterable[Message], field: str) -> None:
    """Raises HttpError 400."""
    if sum(part["type"] in FEATURES for message in messages for part in parts_of(message)) > MAX_PARTS:
        raise _invalid(field, f"more than {MAX_PARTS} images, sounds and files")


def needs_of(message: Message) -> set[str]:
    """The features that an agent needs for it."""
    needs = {FEATURES[part["type"]] for part in parts_of(message) if part["type"] in FEATURES}
    return needs | {"tools"} if message.tool_calls or message.role == "tool" else needs


def _read(part: Part, where: str, text_types: Sequence[str]) -> dict[str, Any]:
    if part.type in text_types:
        if part.text is None:
            raise _invalid(f"{where}.text", "is missing")
        return {"type": "text", "text": part.text}
    match part.type:
        case "image_url" | "input_image":
            image = part.image_url
            image = ImageUrl(image, part.detail) if isinstance(image, str) else image
            if image is None:
                raise _invalid(f"{where}.image_url", "is missing")
            _check_url(image.url, f"{where}.image_url")
            return {"type": "image_url", "image_url": msgspec.to_builtins(image)}
        case "input_audio" if part.input_audio:
            _check_base64(part.input_audio.data, f"{where}.input_audio.data")
            return {"type": "input_audio", "input_audio": msgspec.to_builtins(part.input_audio)}
        case "file" | "input_file":
            file = part.file or FilePart(part.file_data, part.filename, part.file_id)
            if file.file_data is None and file.file_id is None:
                raise _invalid(where, "`file_data` or `file_id` is needed")
            if file.file_data is not None:
                _check_data(file.file_data, f"{where}.file_data")
            return {"type": "file", "file": msgspec.to_builtins(file)}
    raise _invalid(f"{where}.type", f"{part.type[:40]!r} is not understood here, or its field is missing")


def _check_url(url: str, where: str) -> None:
    """An https URL is the agent's to fetch, or not to."""
    if url.startswith("data:"):
        _check_data(url, where)
    elif not url.startswith(("https://", "http://")):
        raise _invalid(where, "must be a data: or https: URL")


def _check_data(data: str, where: str) -> None:
    """A data URL, or base64 alone."""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        if not head.endswith(";base64"):
            raise _invalid(where, "a data: URL must be base64")
    _check_base64(data, where)


def _check_base64(data: str, where: str) -> None:
    try:
        if not binascii.a2b_base64(data, strict_mode=True):
            raise _invalid(where, "is empty")
    except ValueError:  # not ASCII, too
        raise _invalid(where, "is no base64") from None


def _invalid(param: str, message: str) -> HttpError:
    return HttpError(400, f"{param}: {message}", code="invalid_value", param=param)
