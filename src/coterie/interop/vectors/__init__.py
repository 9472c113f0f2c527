"""Test vectors in the MLS working group's format: verified and generated.

One module for a few kinds of vectors each, with the kinds' names as the official files have them; `kind` declares what
a kind is, `sources` has what the generators share. All kinds are collected in `coterie.interop.kinds`.
"""
