"""Test vectors played through other implementations, without gRPC: each peer is a client driven by JSON lines.

`client` starts a peer and asks it, `passive` plays our passive-client vectors, `differential` gives peers the negative
vectors that we refuse, `judgements` knows who is right where a peer accepts one, and `pages` writes what came out.
"""
