"""Tools of kind `http`: one request a call, on a connection of its own, to the host that the entry names.

`template` makes the request's target of arguments, `addresses` says where it may go, `network` connects there,
`exchange` is the request on the wire and the answer's bytes, `answers` what they say, `tool` puts these together,
`entry` reads the keys.

Imports: dispatcher.files, dispatcher.tools, shared.
Libraries: httpcore2.
"""
