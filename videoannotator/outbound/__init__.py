"""
Connections to the outside on somebody's behalf: videos that a URL names, and callbacks.

A stranger's URL must not become a way into the network that the server stands in. `targets.py` says which URLs are
taken at all, `policy.py` which addresses may be called, `client.py` makes the connections: a name is resolved once,
every address that it has is checked, and the connection goes to the address that was checked, so that a name that
answers differently the second time (DNS rebinding) changes nothing. Host header, SNI and certificate are those of the
name. Each redirect goes the same way again.
"""
