"""Toolsets of kind `openapi`: the operations of an OpenAPI document, 3.0 or 3.1, as tools over `dispatcher.tools.http`.

`document` reads the file, `schemas` makes JSON Schema of what it says, `operations` finds what is asked how, `styles`
writes arguments as parameters, `toolset` puts these together.

Imports: dispatcher.files, dispatcher.tools, dispatcher.tools.http.
Libraries: yaml.
"""
