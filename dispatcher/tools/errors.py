"""Errors of tools, and what reaches the agent of each."""


class ToolError(Exception):
    """A tool raises it to tell the agent, in its own words, why it failed. Of any other exception the agent learns
    nothing.
    """


class ResultTooLargeError(ValueError):
    """A result is larger than the contract allows; the agent is told so."""


class InvalidArgumentsError(Exception):
    """The arguments do not fit, so that nothing was run; the agent is told how."""
