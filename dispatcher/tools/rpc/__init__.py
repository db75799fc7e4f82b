"""Toolsets of kind `grpc`: the unary methods of a gRPC server's services, as tools.

`entry` reads the keys, `server` is what they say, `connection` is one to it, by which `reflection` asks for its
descriptors; `descriptors` finds the methods in these, `schemas` makes JSON Schema of what they take, `messages` are
JSON and protobuf, `toolset` puts these together.

Imports: dispatcher.files, dispatcher.tools, dispatcher.tools.http, shared.
Libraries: google, grpc, grpc_reflection.
"""
