"""A simulator of the delivery protocol: model members over the real client and the real rules of the service.

`scenarios` says who is there and what may happen, `run` makes schedules from seeds, looks at `assertions` after every
action and shrinks what breaks one. docs/simulator.md reports what was found.
"""

from __future__ import annotations
