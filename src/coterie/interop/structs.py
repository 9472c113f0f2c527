"""The one struct that the RFC writes without a name of its own: the content of the extension ratchet_tree."""

from __future__ import annotations

from coterie.mls.ratchet_tree import Node
from coterie.mls.tls import Struct


class RatchetTreeList(Struct):
    """§12.4.3.3: `optional<Node> ratchet_tree<V>`, as it stands in the extension and beside a Welcome."""

    ratchet_tree: tuple[Node | None, ...]
