"""The blind Delivery Service: orders sealed entries, keeps key packages and inboxes, knows no group.

`docs/delivery-protocol.md` is what it does. From below: `settings` and `limits`; `store` (one SQLite database with
group commit); `ledger` (what the logs need from storage) with `sqlite_ledger` behind it; `logs` (the rules for logs and
boxes); `retention`; `directory` (key packages and inboxes, a database of their own); `hub` (subscriptions);
`signatures` (checks on another core); `service`
(all of it, for a transport); `app` (ASGI).
"""
