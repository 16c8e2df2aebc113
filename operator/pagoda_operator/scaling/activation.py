"""What a gateway tells the operator: that it holds requests for a service, so that replicas come for them.

    POST /activate/NAMESPACE/NAME   {"requests": 3}
    200 {"standsSeconds": 30}       404, 400 {"error": "what is wrong"}

A service without replicas tells nothing by itself, so somebody has to say that it is wanted. Held requests count as
waiting, beside those that wait in the replicas. A gateway says how many it holds when that changes, repeats it within
`standsSeconds` while it holds any, and says 0 once they are forwarded; one that goes without a word is forgotten. It
tells every instance of the operator (their addresses are those of the chart's headless Service), since each answers
scalers for itself, and nothing is written to the cluster for it.

Nobody is asked who they are: whoever reaches this port may have replicas started, up to the service's maxReplicas. The
chart's `networkPolicy` says who does.
"""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from pagoda_operator.scaling.load import HOLD_SECONDS, Loads

MOST: Final = 1_000_000
"""Requests that anybody may claim to hold."""
BODY_LIMIT: Final = 4096


class BadClaim(ValueError):
    """What was posted says nothing; the message names the field, its value and what it must be."""


def activation_route(loads: Loads) -> web.RouteDef:
    """The endpoint, for a server of the operator."""

    async def activate(request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        try:
            requests = held_requests(await request.content.read(BODY_LIMIT + 1))
        except BadClaim as error:
            return web.json_response({"error": str(error)}, status=400)
        if not loads.activate(namespace, name, requests):
            return web.json_response({"error": f"there is no InferenceService {namespace}/{name}"}, status=404)
        return web.json_response({"standsSeconds": HOLD_SECONDS})

    return web.post("/activate/{namespace}/{name}", activate)


def held_requests(body: bytes) -> int:
    """The number in a claim. Raises BadClaim."""
    example = 'such as {"requests": 3}'
    if len(body) > BODY_LIMIT:
        raise BadClaim(f"the body has more than {BODY_LIMIT} bytes; it must be a JSON object {example}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadClaim(f"the body is no JSON; it must be an object {example}") from None
    if not isinstance(document, dict) or "requests" not in document:
        raise BadClaim(f"the body lacks `requests`; it must be an object {example}")
    requests = document["requests"]
    if not isinstance(requests, int) or isinstance(requests, bool) or not 0 <= requests <= MOST:
        raise BadClaim(f"requests is {json.dumps(requests)[:80]}; it must be a whole number from 0 to {MOST}")
    return requests
