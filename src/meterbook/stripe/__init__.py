"""Stripe's shapes to ours and back; the official SDK, which only the relay and the webhooks' door call. Imports core and errors.

``gateway``        what is asked of Stripe: invoices of charges, cancellations, subscriptions and payments as they are
``signatures``     whether Stripe sent a webhook
``events``         a webhook event, and what it means here; ``subscriptions``, ``metadata`` and ``fields`` read its parts
``effects``        those meanings, by name
``rehearsal``      an account in test mode billed once, the way the relay does
"""
