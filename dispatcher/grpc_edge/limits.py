"""What a peer of a ChatStream may send, and make wait. What exceeds a limit costs its sender only."""

# Bytes that wait for a peer to read them. From the first on nothing large is added: results wait in the log, sessions
# in the queue; it is some batches, so that the line is never idle for that. Beyond the second, which refusals and other
# small packets alone can reach, the stream ends.
FULL_BYTES = 1024 * 1024
MAX_UNREAD_BYTES = 16 * 1024 * 1024
# Sessions of one stream; and those of them that are being opened at once, for each takes several steps of the store and
# all that its log holds. Who opens more is told `unavailable`, and comes again.
MAX_SESSIONS = 1024
MAX_OPENING = 16
REMEMBERED = 256  # sessions that have left a stream, of which no more than one refusal is told
FIRST_PACKET_SECONDS = 10.0  # a peer that opens a stream has something to say
MAX_SILENT_STREAMS = 256  # of all peers together, that have said nothing yet; beyond, the oldest ends
MAX_WATCHES = 1024  # of gRPC's health, by all peers together: a Commander has one of each replica
