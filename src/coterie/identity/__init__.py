"""Who a member is: verifies credentials against trust anchors, for both services and the client.

`names` are users and devices, `keys` raw signature public keys, `x509` chains of certificates, `revocation` the lists
of those that are withdrawn, `issuer` the interface of RFC 9750 §4 with X.509 behind it. Nothing here does I/O or reads
a clock; nothing here knows a group.
"""
