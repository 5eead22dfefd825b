"""The routes of the API, and those around it that its document describes."""

from litestar import Router

from meterbook.http import acting, keys, reading, recording, upkeep

VERSION = "/v1"
API = Router(VERSION, route_handlers=[*recording.ROUTES, *reading.ROUTES, *acting.ROUTES, *keys.ROUTES])
DESCRIBED = (API, *upkeep.ROUTES)
