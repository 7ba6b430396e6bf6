"""
The OpenAPI 3.1 document, composed from what the server really has.

Paths, methods, parameters, bodies, answers, scopes and limits are read from the route handlers and their Structs. What
no signature can say (a summary, the codes of refusals, examples, answers that are no JSON) stands in one YAML file for
each noun beside this module, by the handler's name. A handler that no file speaks of makes a test fail, not the server.
"""
