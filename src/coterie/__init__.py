"""Coterie: end-to-end encrypted group messaging, whole.

`coterie.mls` is the protocol (RFC 9420) as code without input or output: bytes, the time and the
source of randomness come in, values come out. `identity` verifies credentials, `storage` keeps a
client's state, `transport` holds the requests that clients and services exchange. `delivery` and
`authentication` are the two services of RFC 9750; `client` is what an application embeds; `apps`
are the command line and other programs; `interop` checks other implementations. Imports point one
way, `apps, interop → client, delivery, authentication → transport, storage, identity → mls →
errors`, and the servers cannot name a group's secrets. This module holds the public names and
nothing else.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
