"""instructor, over each of the ways by which it asks for a form."""

from typing import Any

import instructor
import openai
from pydantic import BaseModel

from tests.clients.drivers.driver import FAILS, QUESTION, SAID, raises, run


class Place(BaseModel):
    city: str
    people: int


class Weather(BaseModel):
    city: str


class Client:
    def __init__(self, url: str, name: str, mode: instructor.Mode) -> None:
        self.client: Any = instructor.from_openai(
            openai.OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode, model="default"
        )
        self.name, self.mode = name, mode

    def ask(self, content: Any, form: Any = Place, **more: Any) -> Any:
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        return self.client.create(messages=messages, response_model=form, max_retries=0, **more)

    def plain(self) -> None:
        assert self.ask(SAID, None).choices[0].message.content == SAID

    def structured(self) -> None:
        assert isinstance(self.ask("A place."), Place)
        assert [isinstance(each, Place) for each in self.ask("Places.", list[Place])] == [True]

    def stream(self) -> None:
        *_, last = self.client.create_partial(messages=[{"role": "user", "content": "A place."}], response_model=Place)
        assert last.city == "text"

    def required(self) -> None:
        assert isinstance(self.ask(QUESTION, Weather), Weather)

    def history(self) -> None:
        earlier = [{"role": "user", "content": "Of Rome."}, {"role": "assistant", "content": "Gladly."}]
        assert isinstance(self.ask([*earlier, {"role": "user", "content": "A place."}]), Place)

    def error(self) -> None:
        raises(Exception, lambda: self.ask(FAILS))

    def refused(self) -> str:
        error = raises(Exception, lambda: self.ask("A place.", n=2))
        return str(error).partition("'message': '")[2].partition("'")[0] or str(error)


if __name__ == "__main__":
    run(
        "instructor",
        {
            "tools": lambda url, name: Client(url, name, instructor.Mode.TOOLS),
            "JSON Schema": lambda url, name: Client(url, name, instructor.Mode.JSON_SCHEMA),
        },
    )
