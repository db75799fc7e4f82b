"""Operators' holds: which new sessions are refused for a while, or which Commander gets none."""

import time
from collections.abc import Mapping
from typing import Annotated

import msgspec
import structlog
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.core.holds import Fits, Hold
from dispatcher.gateway import bodies
from dispatcher.gateway.audited import note
from dispatcher.gateway.errors import HttpError, json_response
from dispatcher.live.fleet import MAX_HOLD_SECONDS, new_hold, place_hold
from dispatcher.store.ports import Store
from shared.records import StopReason

logger = structlog.get_logger()


class FleetOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which sessions: those that have all that is given; or `all`. `detail` is for other operators."""

    agent: bodies.Name | None = None
    tenant: bodies.Name | None = None
    conversation_id: bodies.Name | None = None
    commander: bodies.Name | None = None
    credential: bodies.Name | None = None
    all: bool = False
    reason: StopReason = "RiskControl"
    detail: str = ""
    hold_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_HOLD_SECONDS)] = 0.0

    def fits(self) -> Fits:
        """Raises HttpError 400: nobody shall stop everything by leaving something out."""
        fits = Fits(self.agent, self.tenant, self.conversation_id, self.commander, self.credential)
        if self.credential is not None and self.commander is None:
            raise bodies.invalid("credential", "says which `commander` of that id is meant: give that too")
        if (fits == Fits()) != self.all:
            raise bodies.invalid("all", "give `agent`, `tenant`, `conversation_id`, `commander`, or else `all` as true")
        if (
            self.hold_seconds
            and self.commander is not None
            and fits != Fits(commander=self.commander, credential=self.credential)
        ):
            raise bodies.invalid("commander", "a hold of a Commander has it alone: it is given no session at all")
        return fits


class HoldBody(FleetOrder, frozen=True):
    """It has to be said for how long."""

    hold_seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_HOLD_SECONDS)]


def named(fits: Fits) -> Mapping[str, str]:
    """What of it was given."""
    return {name: value for name, value in msgspec.structs.asdict(fits).items() if value is not None}


class HoldRoutes:
    def __init__(self, store: Store, taken: bodies.Bodies) -> None:
        self._store, self._bodies = store, taken
        self.routes = [
            Route("/operator/holds", self._list, methods=["GET"]),
            Route("/operator/holds", self._place, methods=["POST"]),
            Route("/operator/holds/{hold_id}", self._lift, methods=["DELETE"]),
        ]

    async def _list(self, http: HttpRequest) -> Response:
        return json_response(200, {"holds": list(map(_shown, await self._store.holds(time.time())))})

    async def _place(self, http: HttpRequest) -> Response:
        """Without a stop: what runs goes on."""
        body = await self._bodies.take(http, HoldBody)
        fits = body.fits()
        note(http, fits=named(fits), reason=body.reason, hold_seconds=body.hold_seconds)
        hold = await new_hold(self._store, fits, body.hold_seconds, body.reason, body.detail)
        await place_hold(self._store, hold)
        return json_response(201, _shown(hold))

    async def _lift(self, http: HttpRequest) -> Response:
        hold_id = http.path_params["hold_id"]
        if not await self._store.lift(hold_id):
            raise HttpError(404, "No such hold.", code="hold_not_found")
        logger.info("hold_lifted", hold_id=hold_id)
        return Response(status_code=204)


def _shown(hold: Hold) -> dict[str, object]:
    return {
        "hold_id": hold.hold_id,
        **msgspec.structs.asdict(hold.fits),
        "placed_at": hold.placed_at,
        "ends_at": hold.ends_at,
        "reason": hold.reason,
        "detail": hold.detail,
    }
