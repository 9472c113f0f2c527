"""The gRPC server of the working group's interop harness: Coterie as an implementation under test.

`states` does the work; here requests become calls, and errors become gRPC statuses with our own words. The interface is
compiled from `mls_client.proto` when the server starts, so no generated code is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from coterie.errors import CoterieError, UnsupportedError
from coterie.interop.states import States

PROTO: Final = Path(__file__).with_name("mls_client.proto")
CALLS: Final = (
    "Name", "SupportedCiphersuites", "CreateGroup", "CreateKeyPackage", "JoinGroup", "ExternalJoin", "GroupInfo",
    "StateAuth", "Export", "Protect", "Unprotect", "StorePSK", "AddProposal", "UpdateProposal", "RemoveProposal",
    "ExternalPSKProposal", "ResumptionPSKProposal", "GroupContextExtensionsProposal", "Commit", "HandleCommit",
    "HandlePendingCommit", "ReInitProposal", "ReInitCommit", "HandlePendingReInitCommit", "HandleReInitCommit",
    "ReInitWelcome", "HandleReInitWelcome", "CreateBranch", "HandleBranch", "NewMemberAddProposal",
    "CreateExternalSigner", "AddExternalSigner", "ExternalSignerProposal", "Free",
)  # fmt: skip
"""Every call of the interface."""


def interface() -> tuple[Any, Any]:
    """The compiled interface: the module of its messages, and that of its services."""
    messages, services = grpc.protos_and_services(f"coterie/interop/{PROTO.name}")
    return messages, services


class Servicer:
    """Answers the calls; one at a time, since a group belongs to one thread."""

    def __init__(self, messages: Any, *, grease: bool) -> None:  # noqa: ANN401 - a module made at run time
        self._states = States(messages, grease=grease)
        self._lock = threading.Lock()

    def handler(self, name: str) -> Callable[[Any, Any], Any]:
        """What answers a call."""
        act = getattr(self._states, name)

        def answer(request: Any, context: Any) -> Any:  # noqa: ANN401 - types made at run time
            try:
                with self._lock:
                    return act(request)
            except UnsupportedError as error:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
            except (CoterieError, ValueError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")
            return None

        return answer


def start(port: int = 0, *, grease: bool = False) -> tuple[Any, int]:
    """Starts the server on the loopback address; returns it and its port (one that is free, if 0 is asked for).

    With `grease`, key packages and leaves also carry an extension of a GREASE type (RFC 9420 §13.5).
    """
    messages, services = interface()
    servicer = Servicer(messages, grease=grease)
    base = services.MLSClientServicer
    answers = {name: staticmethod(servicer.handler(name)) for name in CALLS}
    bound = type("Bound", (base,), answers)()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    services.add_MLSClientServicer_to_server(bound, server)
    chosen = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, chosen


def serve(port: int, *, grease: bool = False) -> None:
    """Serves until it is stopped; says so in one line when it is ready."""
    server, chosen = start(port, grease=grease)
    print(f"listening on 127.0.0.1:{chosen}", flush=True)  # noqa: T201 - what the runner waits for
    server.wait_for_termination()
