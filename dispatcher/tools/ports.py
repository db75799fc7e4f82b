"""What a kind of tool implements: a tool, and a toolset, which is a server whose tools become ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

from dispatcher.tools.context import Context

DEFAULT_TIMEOUT = 10.0  # seconds
# Of a tool that only another instance's files know, with a limit of their own: a call is not given up before that.
UNKNOWN_TIMEOUT = 600.0
DEFAULT_APPROVAL_SECONDS = 600.0  # a person who is asked may have to be found
DEFAULT_CONCURRENCY = 16

Approver: TypeAlias = Literal["operator", "user"]  # an operator may decide on what a user is asked, too
APPROVERS: tuple[Approver, ...] = get_args(Approver)


@dataclass(frozen=True, slots=True)
class Spec:
    """What there is to know of a tool, whatever its kind.

    schema            JSON Schema of the arguments, an object
    kind              as in the operators' files
    timeout_seconds   of a call, all of it; then it is answered TIMEOUT
    agents            who is shown it, and may call it; empty: all
    approval          who has to approve a call before it runs; None: nobody
    approval_seconds  after which a call that nobody approved is answered DENIED
    concurrency       calls of another service at once; more wait, within the timeout
    idempotent        a call of which nothing was answered may be made once more
    forward_token     the service is shown the user's own token
    """

    name: str
    description: str
    schema: dict[str, Any]
    kind: str = "local"
    timeout_seconds: float = DEFAULT_TIMEOUT
    agents: frozenset[str] = frozenset()
    approval: Approver | None = None
    approval_seconds: float = DEFAULT_APPROVAL_SECONDS
    concurrency: int = DEFAULT_CONCURRENCY
    idempotent: bool = False
    forward_token: bool = False

    def serves(self, agent: str) -> bool:
        """Whether that agent may call it."""
        return not self.agents or agent in self.agents


class Tool(Protocol):
    """A tool of any kind. What is common to all stands around it, in `registry`: the schema, the agents, the time, the
    calls at once, the breaker, the second try, the result's size.
    """

    @property
    def spec(self) -> Spec: ...

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """The result as JSON. The arguments fit the schema. context: whose call it is; what identifies it to another
        service is made of that by `identity`.

        Cancelled, which a stop and the time limit do, it takes back what it asked of another service: closes the
        connection, resets the stream, sends `cancelled`.

        Raises InvalidArgumentsError if nothing was run or sent; ToolError with a text for the agent; of another
        service also ServiceError, UnreachableError, UnknownOutcomeError; ResultTooLargeError. Any other exception is a
        fault, of which the agent learns nothing.
        """


class Offer(Protocol):
    """What a toolset tells its keeper."""

    def __call__(self, tools: Sequence[Tool], left_out: Sequence[str] = ()) -> None:
        """All tools that there are now. left_out: others that the operator asked for, and why each is none."""

    def lost(self, why: Exception) -> None:
        """The server does not do what it should, but may still answer the calls that are under way. `run` returns when
        they have ended; for others it is run again meanwhile.
        """


class Toolset(Protocol):
    """A server whose tools become ours. What is common to all stands around it, in `keeper`: the back-off, the pin,
    names that are taken, schemas that cannot be used.
    """

    @property
    def name(self) -> str: ...

    async def run(self, offer: Offer) -> None:
        """Connect, and offer all tools that there are; again, all of them, whenever that changes.

        Returns or raises when the server is lost or cannot be reached; it is run again after a while. A call of one of
        its tools raises UnreachableError meanwhile. ServiceError: why, in words that may be logged. Cancelled, it
        closes what it has.
        """
