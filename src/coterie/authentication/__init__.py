"""The Authentication Service (RFC 9750 §4): binds users to their devices' signature keys and knows nothing of groups.

`ca` issues certificates and revocation lists, `ledger` is the database, `service` the rules, `app` the HTTP face.
"""
