"""What a peer of a ChatStream may send, and make wait. What exceeds a limit costs its sender only."""

from shared.records import MAX_MESSAGE_BYTES

# Bytes that wait for a peer to read them. From the first on nothing large is added: results wait in the log, sessions
# in the queue; it is some batches, so that the line is never idle for that. Beyond the second, which refusals and other
# small packets alone can reach, the stream ends.
FULL_BYTES = 1024 * 1024
MAX_UNREAD_BYTES = MAX_MESSAGE_BYTES
REMEMBERED = 4096  # sessions that have left a stream
MAX_SESSION_ID = 256  # characters of an id that a peer brings
