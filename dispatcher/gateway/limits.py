"""What HTTP may take of the Dispatcher: the bounds of this edge that are no settings."""

import resource

HEAD_BYTES = 32 * 1024  # request line and headers of a request; browsers and SDKs send 1 to 8 KiB
BLANK_BYTES = 16  # empty lines before a request: old clients send one after a body
# Of a connection, while one of its requests is answered: then nothing more is read. What the last read brought is kept
# beyond that, 256 KiB at most.
AHEAD_BYTES = 64 * 1024  # a body that its route is slow to take, or requests that wait their turn
AHEAD_REQUESTS = 8
REST_SECONDS = 0.05  # after so many in a row: four connections that never waited kept words and stops waiting
BODY_GRACE_SECONDS = 10.0  # until a body's pace is judged
BODY_BYTES_A_SECOND = 240  # as Kestrel asks: any line is faster, a body that comes a byte a minute is not
LINGER_SECONDS = 2.0  # for a client that sends on after its last answer: a reset would take the answer from it
KEEP_ALIVE_SECONDS = 15.0  # the longest silence within an answer: proxies cut at 30 s and more
PROBE_SECONDS = 0.25  # after which a client that closed its side is asked whether it is there; most answers are faster
LOOK_SECONDS = 0.02  # then again after twice as long each time: a reset comes after a round trip
BACKLOG = 2048

MAX_DESCRIPTORS = 65536
MAX_RESERVE = 256


def connections() -> tuple[int, int]:
    """How many users' and how many operators' connections may be open, so that neither can take all descriptors from
    the others, from Commanders and from the store.

    Raises this process's own limit as far as it may go, up to MAX_DESCRIPTORS.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    descriptors = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MAX_DESCRIPTORS)
    reserve = min(MAX_RESERVE, descriptors // 3)
    return descriptors - reserve, reserve // 4
