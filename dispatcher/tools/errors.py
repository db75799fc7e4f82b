"""Errors of tools, and what reaches the agent of each."""


class ToolError(Exception):
    """A tool raises it to tell the agent, in its own words, why it failed. Of any other exception the agent learns
    nothing.
    """


class ServiceError(ToolError):
    """Another service did not do what it was asked for.

    code     for the agent, in the words of a program: `http_404`
    message  for the agent
    failing  this speaks against the service, not against this one call: several in a row open the breaker
    """

    def __init__(self, code: str, message: str, *, failing: bool = False) -> None:
        super().__init__(message)
        self.code, self.failing = code, failing


class UnreachableError(ServiceError):
    """Nothing of the call has left this program."""

    def __init__(self) -> None:
        super().__init__("unreachable", "The tool's service cannot be reached.", failing=True)


class CertificateError(ServiceError):
    """Nothing of the call has left this program: whoever answered is not who it was taken for."""

    def __init__(self) -> None:
        super().__init__("certificate", "The certificate of the tool's service cannot be trusted.", failing=True)


class BrokenAnswerError(ServiceError):
    """What came back is no answer. message: for the agent, why not."""

    def __init__(
        self, message: str = "The tool's service answered with what is no result.", *, failing: bool = True
    ) -> None:
        super().__init__("broken_answer", message, failing=failing)


class UnknownOutcomeError(Exception):
    """The call may have left this program, and its answer was lost."""


class ResultTooLargeError(ValueError):
    """A result is larger than the contract allows; the agent is told so."""


class InvalidArgumentsError(Exception):
    """The arguments do not fit, so that nothing was run; the agent is told how."""
