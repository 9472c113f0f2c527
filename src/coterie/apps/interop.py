"""`coterie interop`: this implementation under the working group's harness, and against other implementations."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from coterie.errors import StateError

app = typer.Typer(
    no_args_is_help=True, help="Talk to other MLS implementations (needs coterie[interop])."
)


def _needs_grpc() -> None:
    if find_spec("grpc_tools") is None:
        msg = "this needs gRPC: pip install 'coterie[interop]'"
        raise StateError(msg)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 for any.")] = 50001,
) -> None:
    """Serve the interop harness's gRPC interface, as an implementation under test."""
    _needs_grpc()
    from coterie.interop.server import serve as run

    run(port)
