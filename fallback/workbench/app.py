"""The reviewers' page: a few files and a small JSON API over the queue.

A lease that was taken for somebody who has gone meanwhile would keep its item from everybody until it lapses; so a
waiting call looks after its caller between short waits, and what it leased for nobody it gives back. A page that is
left gives back what it held, a moment later: see `fallback.workbench.departures`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote
from uuid import uuid4

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fallback.answer import Identity
from fallback.config import Config, FallbackSettings
from fallback.deferral import Deferral, Lease
from fallback.documents import Documents
from fallback.errors import DemurError, ForbiddenError, InvalidError, NotFoundError, StateError, UnauthenticatedError
from fallback.identity import AUTHORIZATION_KEY, IDENTITY_KEY, OPERATOR, REVIEWER, Credentials
from fallback.queue import Queue, QueueState
from fallback.workbench import assets, certificates, wire
from fallback.workbench.departures import Departures
from fallback.workbench.guard import Guard, check_same_origin, host_name, read_body

# How long a waiting call goes on before it looks whether its caller is still there.
LOOK_SECONDS: Final = 1.0
log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[object]]


def build(queue: Queue, credentials: Credentials, config: Config) -> Starlette:
    """Return the page's application over `queue`; who reviews is decided by `credentials`.

    `application.state.drain()` ends what waits within LOOK_SECONDS, so that the process can stop.
    """
    settings = config.table("fallback", FallbackSettings)
    workbench = Workbench(queue, credentials, config)
    hosts = {host_name(host) for host in (settings.page_listen, *settings.page_hosts)}
    application = Starlette(
        routes=[
            *assets.routes(),
            Route("/api/session", endpoint(workbench.session)),
            Route("/api/queues", endpoint(workbench.queues)),
            Route("/api/certificates", endpoint(workbench.certificates)),
            Route("/api/lease", endpoint(workbench.lease), methods=["POST"]),
            Route("/api/extend", endpoint(workbench.extend), methods=["POST"]),
            Route("/api/release", endpoint(workbench.release), methods=["POST"]),
            Route("/api/submit", endpoint(workbench.submit), methods=["POST"]),
            Route("/api/skip", endpoint(workbench.skip), methods=["POST"]),
            Route("/api/flag", endpoint(workbench.flag), methods=["POST"]),
            Route("/api/undo", endpoint(workbench.undo), methods=["POST"]),
            Route("/api/draft", endpoint(workbench.draft), methods=["POST"]),
            Route("/api/verdict", endpoint(workbench.verdict), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={HTTPException: _no_route},
        lifespan=workbench.lifespan,
    )
    application.state.drain = workbench.drain
    return application


class Workbench:
    """What the page calls, over one queue."""

    def __init__(self, queue: Queue, credentials: Credentials, config: Config) -> None:
        self._queue = queue
        self._credentials = credentials
        self._config = config
        self._draining = False
        self._departures = Departures(queue)
        self._documents = Documents.connect(config)

    def drain(self) -> None:
        """Let nobody wait any longer."""
        self._draining = True
        self._departures.hurry()

    @asynccontextmanager
    async def lifespan(self, _application: Starlette) -> AsyncIterator[None]:
        """End with nothing under way."""
        yield
        await self._departures.close()
        await self._documents.close()

    async def session(self, request: Request) -> wire.SessionView:
        """Say who calls, or how to say it."""
        sign_in = "token" if self._credentials.configured else "name"
        try:
            reviewer = self._reviewer(request)
            skills = None if reviewer.skills is None else tuple(sorted(reviewer.skills))
            return wire.SessionView(sign_in=sign_in, name=reviewer.name, skills=skills)
        except ForbiddenError as error:
            # Whose token lacks the role has a way on: another token.
            return wire.SessionView(sign_in=sign_in, name=None, message=f"{error.message}; sign in with another token")
        except (UnauthenticatedError, InvalidError) as error:
            return wire.SessionView(sign_in=sign_in, name=None, message=error.message)

    async def queues(self, request: Request) -> dict[str, list[QueueState]]:
        """List the queues."""
        self._reviewer(request)
        return {"queues": sorted(await self._queue.states(), key=lambda state: state.name)}

    async def certificates(
        self, request: Request
    ) -> dict[str, list[certificates.CertificateView] | list[certificates.AmendmentView]]:
        """Say how the proofs of the models stand; to operators also which answers were wrong, and whose are like them.

        Who asked what is not every reviewer's to know.
        """
        self._reviewer(request)
        found = await self._documents.read_all("")
        amended: list[certificates.AmendmentView] = []
        with suppress(ForbiddenError):
            self._reviewer(request, role=OPERATOR)
            amended = certificates.amendments(found)
        return {"certificates": certificates.views(found, second=int(time.time())), "amendments": amended}

    async def lease(self, request: Request) -> dict[str, list[wire.LeaseView]]:
        """Take items for the caller, first those they hold where they ask to go on."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.LeaseRequest)
        deadline = time.monotonic() + wanted.wait_seconds
        resume = wanted.resume
        while True:
            wait_seconds = min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))
            leases = await self._queue.lease(
                wanted.queue, reviewer=reviewer, limit=wanted.limit, wait_seconds=wait_seconds, resume=resume
            )
            resume = False
            gone = await request.is_disconnected()
            if gone:
                await self._give_back(leases, reviewer)
                return {"leases": []}
            if leases or self._draining or time.monotonic() >= deadline:
                return {"leases": [self._view(lease) for lease in leases]}

    async def extend(self, request: Request) -> dict[str, float]:
        """Hold an item for longer."""
        reviewer = self._reviewer(request)
        hold = wire.decode(await read_body(request), wire.Hold)
        # The page has the content: it may be large, and this is asked again and again.
        lease = await self._queue.extend(hold.token, reviewer=reviewer, request_id=hold.request_id, content=False)
        return {"lease_seconds": self._lease_seconds(lease)}

    async def release(self, request: Request) -> dict[str, int]:
        """Give items back; one that is no longer held is no fault, for that was the wish."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.ReleaseRequest)
        released = 0
        for left in wanted.releases:
            try:
                if left.draft:
                    await self._save(left, reviewer)
                if wanted.leaving and self._departures.add(left.token, reviewer, left.request_id):
                    continue
                await self._queue.release(left.token, reviewer=reviewer, request_id=left.request_id)
                released += 1
            except (StateError, NotFoundError) as error:
                log.info("release refused", message=error.message)
        return {"released": released}

    async def submit(self, request: Request) -> wire.Submitted:
        """Take an answer."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.SubmitRequest)
        answer = wire.normal(wanted.answer)
        deferral = await self._queue.submit(
            wanted.token, reviewer=reviewer, answer=answer, comment=wanted.comment, request_id=wanted.request_id
        )
        return self._submitted(deferral, reviewer)

    async def skip(self, request: Request) -> dict[str, bool]:
        """Leave an item to others, for a reason."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.SkipRequest)
        await self._queue.skip(
            wanted.token,
            reviewer=reviewer,
            reason=wanted.reason,
            request_id=wanted.request_id,
            escalate=wanted.escalate,
        )
        return {"skipped": True}

    async def flag(self, request: Request) -> dict[str, bool]:
        """Take a comment on an item."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.FlagRequest)
        await self._queue.flag(wanted.deferral, reviewer=reviewer, comment=wanted.comment, request_id=wanted.request_id)
        return {"flagged": True}

    async def undo(self, request: Request) -> dict[str, wire.LeaseView]:
        """Take an answer back; its item is the caller's again."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.UndoRequest)
        lease = await self._queue.undo(wanted.deferral, reviewer=reviewer, request_id=wanted.request_id)
        return {"lease": self._view(lease)}

    async def draft(self, request: Request) -> dict[str, bool]:
        """Keep what was begun."""
        reviewer = self._reviewer(request)
        await self._save(wire.decode(await read_body(request), wire.DraftRequest), reviewer)
        return {"saved": True}

    async def verdict(self, request: Request) -> wire.Submitted:
        """Say what became of the caller's answer."""
        reviewer = self._reviewer(request)
        wanted = wire.decode(await read_body(request), wire.VerdictRequest)
        return self._submitted(await self._queue.get(wanted.deferral), reviewer)

    async def _save(self, kept: wire.DraftRequest, reviewer: Identity) -> None:
        # A release may carry a draft under its own request id: what is saved is another request.
        await self._queue.save_draft(
            kept.token, reviewer=reviewer, draft=kept.draft, request_id=f"draft-{kept.request_id}"
        )

    async def _give_back(self, leases: list[Lease], reviewer: Identity) -> None:
        for lease in leases:
            request_id = uuid4().hex
            # Who went on here may have loaded the page anew once more.
            if not (lease.resumed and self._departures.add(lease.token, reviewer, request_id)):
                await self._queue.release(lease.token, reviewer=reviewer, request_id=request_id)

    def _view(self, lease: Lease) -> wire.LeaseView:
        tiers = self._config.queue(lease.deferral.queue).tiers
        return wire.lease_view(lease, lease_seconds=self._lease_seconds(lease), tiers=tiers)

    def _submitted(self, deferral: Deferral, reviewer: Identity) -> wire.Submitted:
        undo_seconds = self._config.queue(deferral.queue).undo_seconds
        return wire.submitted(deferral, wire.own_review(deferral, reviewer.name), undo_seconds=undo_seconds)

    def _lease_seconds(self, lease: Lease) -> float:
        # A fresh lease runs for the queue's time; comparing its end with this machine's clock would trust two clocks.
        return float(self._config.queue(lease.deferral.queue).lease_seconds)

    def _reviewer(self, request: Request, *, role: str = REVIEWER) -> Identity:
        metadata = [(name, value) for name, value in request.headers.items() if name == AUTHORIZATION_KEY]
        named = request.headers.get("x-demur-identity")
        if named is not None:
            metadata.append((IDENTITY_KEY, unquote(named, errors="replace")))
        return self._credentials.identify(metadata, peer=_peer(request), require_name=True, role=role)


def _peer(request: Request) -> str:
    """Return gRPC's name of the other end, which `Credentials` reads; a unix socket has no address."""
    if request.client is None:
        return "unix:"
    host, port = request.client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Make an API endpoint of `handler`: same origin only, JSON out, errors as code and sentence, nothing internal."""

    async def answer(request: Request) -> Response:
        try:
            check_same_origin(request.headers)
            return wire.json_response(await handler(request))
        except DemurError as error:
            return wire.error_response(error)
        except Exception:
            error_id = uuid4().hex[:12]
            log.exception("internal error", error_id=error_id, path=request.url.path)
            return wire.error_response(DemurError(f"internal error, id {error_id}"))

    return answer


async def _no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "NOT_FOUND" if error.status_code == HTTPStatus.NOT_FOUND else "INVALID_ARGUMENT"
    return wire.json_response({"code": code, "message": error.detail}, error.status_code)
