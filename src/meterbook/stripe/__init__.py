"""Stripe's shapes to ours and back; the official SDK, which only the relay of the outbox calls. Imports core and errors.

``gateway``   what is asked of Stripe: invoices of charges, cancellations, subscriptions as they are
"""
