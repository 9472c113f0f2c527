"""`coterie inspect`: shows an MLS object field by field, with what can be computed and verified beside it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from coterie.apps.answering import JsonOption, answer
from coterie.errors import DecodeError, StateError

if TYPE_CHECKING:
    from coterie.interop.inspecting import Fact, Item

_SHOWN_BYTES = 20
_SHOWN_ITEMS = 12
_UNLIMITED = 1 << 20
_MAX_SIZE = 256 << 20

app = typer.Typer()


@app.command(rich_help_panel="Trying and checking")
def inspect(
    file: Annotated[
        str, typer.Argument(help="A file, or - for standard input.", metavar="[FILE|-]")
    ] = "-",
    type_name: Annotated[
        str | None,
        typer.Option(
            "--type",
            "-t",
            help="The struct's name in RFC 9420, where it is not recognised: LeafNode, ratchet_tree,"
            " PrivateMessageContent:commit. `--type list` lists them.",
            metavar="NAME",
        ),
    ] = None,
    suite: Annotated[
        int | None, typer.Option(help="The cipher suite, where the bytes do not say it.")
    ] = None,
    as_json: JsonOption = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Show long values and lists in full.")
    ] = False,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Show secrets too (--json always does).")
    ] = False,
) -> None:
    """Show an MLS message, key package, GroupInfo, ratchet tree or any other struct, field by field.

    The input is binary, hexadecimal, base64 or PEM-like. What can be computed stands beside the fields: references,
    hashes, whether signatures hold.

    Example: coterie inspect welcome.mls

    Example: xclip -o | coterie inspect --type LeafNode
    """
    from coterie.interop.inspecting import STRUCTS, describe

    if type_name == "list":
        answer(sorted(STRUCTS), "\n".join(sorted(STRUCTS)), as_json=as_json)
        return
    data = _read(file)
    if not data.strip():
        raise DecodeError("there is nothing to inspect: the input is empty")
    found = describe(data, type_name, suite=suite, now=int(time.time()))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    # The terminal wraps long lines, so that a reference can be copied whole.
    console = Console(highlight=False, soft_wrap=True, width=_UNLIMITED)
    head = Text.assemble((found.type_name, "bold"), f", {found.size:,} bytes, from {found.form}")
    console.print(head)
    tree = Tree(Text("", end=""), hide_root=True, guide_style="dim")
    _add(tree, found.root, _Style(everything=everything, secrets=secrets), root=True)
    console.print(tree)
    if found.also:
        others = ", ".join(found.also)
        console.print(Text(f"(these bytes could also be a {others}: see --type)", style="dim"))


def _read(file: str) -> bytes:
    """The input's bytes; raises `StateError` where there are none to read."""
    try:
        if file == "-":
            if sys.stdin.isatty():
                typer.echo("reading from the terminal; end with Ctrl-D", err=True)
            data = sys.stdin.buffer.read(_MAX_SIZE + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(_MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{file} cannot be read: {reason}"
        raise StateError(msg) from None
    if len(data) > _MAX_SIZE:
        msg = f"{file} has more than {_MAX_SIZE >> 20} MiB: it is no MLS object"
        raise StateError(msg)
    return data


class _Style:
    """How much is shown."""

    def __init__(self, *, everything: bool, secrets: bool) -> None:
        self.everything = everything
        self.secrets = secrets

    def bytes(self, data: bytes) -> str:
        """Bytes in hexadecimal digits, cut off where they are long."""
        if not data:
            return "(empty)"
        if self.everything or len(data) <= _SHOWN_BYTES:
            return data.hex()
        return f"{data[:_SHOWN_BYTES].hex()}…"


def _add(parent: Tree, item: Item, style: _Style, *, root: bool = False) -> None:
    branch = parent if root else parent.add(_line(item, style))
    for fact in item.facts:
        branch.add(_fact_line(fact))
    shown = item.children if style.everything else item.children[: _cut(item)]
    for child in shown:
        _add(branch, child, style)
    if len(shown) < len(item.children):
        more = len(item.children) - len(shown)
        branch.add(Text(f"… {more} more; --all shows them", style="dim"))


def _cut(item: Item) -> int:
    """How many parts of an item are shown: all fields, and the first elements of a list."""
    is_list = bool(item.children) and item.children[0].name.startswith("[")
    return _SHOWN_ITEMS if is_list else len(item.children)


def _line(item: Item, style: _Style) -> Text:
    text = Text.assemble((item.name, "cyan"))
    if item.data is not None and item.secret and not style.secrets:
        text.append(f"  {len(item.data)} secret bytes, --secrets shows them", style="yellow")
    elif item.data is not None:
        if item.note:
            text.append(f"  {item.note}", style="bold")
        text.append(f"  {style.bytes(item.data)}", style="dim" if item.note else "default")
        if len(item.data) > _SHOWN_BYTES:
            text.append(f" {len(item.data):,} bytes", style="dim")
        return text
    elif item.value is not None:
        text.append(f"  {item.value}", style="bold")
    else:
        text.append(f"  {item.type}", style="dim")
    if item.note:
        text.append(f"  {item.note}", style="green")
    return text


def _fact_line(fact: Fact) -> Text:
    mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "blue")}[fact.good]
    return Text.assemble((f"{mark} {fact.name}: ", style), fact.value)
