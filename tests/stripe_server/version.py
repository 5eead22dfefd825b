"""The one version of Stripe's API that is spoken here: the default of the SDK in requirements.lock."""

API_VERSION = "2026-10-28.endive"
