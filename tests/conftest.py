"""For all tests."""

import signal

# Programs that the tests start get Ctrl-C as on a terminal, also where the tests run in a shell's background, which
# ignores it for all its children. A handler here is the default there.
signal.signal(signal.SIGINT, signal.default_int_handler)
