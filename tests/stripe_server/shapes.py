"""Stripe's objects, newly made: each with the fields that Stripe always sends and those that meterbook could ask for.

Shapes of API version `version.API_VERSION`; `test_shapes.py` holds them against the SDK's types and against Stripe's own examples.
"""

from typing import Any

from tests.stripe_server.cards import Card

Thing = dict[str, Any]

DISPUTE_ANSWER_S = 9 * 86_400


def a_list(url: str, things: list[Thing], *, has_more: bool = False) -> Thing:
    return {"object": "list", "data": things, "has_more": has_more, "url": url}


def customer(customer_id: str, at: int, test_clock: str | None) -> Thing:
    return {
        "id": customer_id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": at,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": customer_id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": test_clock,
    }


def payment_method(method_id: str, at: int, card: Card) -> Thing:
    address = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
    return {
        "id": method_id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {"address": address, "email": None, "name": None, "phone": None, "tax_id": None},
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": "US",
            "display_brand": card.brand,
            "exp_month": 12,
            "exp_year": 2040,
            "fingerprint": f"{card.brand}{card.last4}",
            "funding": "credit",
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": at,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def product(product_id: str, at: int, name: str) -> Thing:
    return {
        "id": product_id,
        "object": "product",
        "active": True,
        "created": at,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": at,
        "url": None,
    }


def price(
    price_id: str, at: int, *, product_id: str, currency: str, unit_amount: int, recurring: Thing | None
) -> Thing:
    return {
        "id": price_id,
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": at,
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": product_id,
        "recurring": recurring,
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }


def plan(of_price: Thing) -> Thing:
    """The older form of a recurring price, which items of subscriptions still carry."""
    return {
        "id": of_price["id"],
        "object": "plan",
        "active": of_price["active"],
        "amount": of_price["unit_amount"],
        "amount_decimal": of_price["unit_amount_decimal"],
        "billing_scheme": "per_unit",
        "created": of_price["created"],
        "currency": of_price["currency"],
        "interval": of_price["recurring"]["interval"],
        "interval_count": of_price["recurring"]["interval_count"],
        "livemode": False,
        "metadata": dict(of_price["metadata"]),
        "meter": None,
        "nickname": of_price["nickname"],
        "product": of_price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def subscription_item(item_id: str, at: int, *, subscription_id: str, of_price: Thing, quantity: int) -> Thing:
    return {
        "id": item_id,
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": at,
        "current_period_end": at,
        "current_period_start": at,
        "discounts": [],
        "metadata": {},
        "plan": plan(of_price),
        "price": dict(of_price),
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def subscription(subscription_id: str, at: int, of_customer: Thing) -> Thing:
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": at,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": at},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": at,
        "currency": "usd",
        "customer": of_customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": a_list(f"/v1/subscription_items?subscription={subscription_id}", []),
        "latest_invoice": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": at,
        "status": "incomplete",
        "test_clock": of_customer["test_clock"],
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }


def invoice(invoice_id: str, at: int, of_customer: Thing, currency: str) -> Thing:
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "meterbook tests",
        **dict.fromkeys(_AMOUNTS_OF_AN_INVOICE, 0),
        **dict.fromkeys(_NULL_IN_A_NEW_INVOICE),
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "created": at,
        "currency": currency,
        "customer": of_customer["id"],
        "customer_email": of_customer["email"],
        "customer_name": of_customer["name"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "issuer": {"type": "self"},
        "lines": a_list(f"/v1/invoices/{invoice_id}/lines", []),
        "livemode": False,
        "metadata": {},
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": at,
        "period_start": at,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "test_clock": of_customer["test_clock"],
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }


_NULL_IN_A_NEW_INVOICE = (
    "account_tax_ids",
    "application",
    "automatically_finalizes_at",
    "custom_fields",
    "customer_account",
    "customer_address",
    "customer_phone",
    "customer_shipping",
    "default_payment_method",
    "default_source",
    "description",
    "due_date",
    "effective_at",
    "ending_balance",
    "footer",
    "from_invoice",
    "hosted_invoice_url",
    "invoice_pdf",
    "last_finalization_error",
    "latest_revision",
    "next_payment_attempt",
    "number",
    "on_behalf_of",
    "parent",
    "receipt_number",
    "rendering",
    "shipping_cost",
    "shipping_details",
    "statement_descriptor",
    "webhooks_delivered_at",
)
_AMOUNTS_OF_AN_INVOICE = (
    "amount_due",
    "amount_overpaid",
    "amount_paid",
    "amount_remaining",
    "amount_shipping",
    "post_payment_credit_notes_amount",
    "pre_payment_credit_notes_amount",
    "starting_balance",
    "subtotal",
    "subtotal_excluding_tax",
    "total",
    "total_excluding_tax",
)


def pricing(of_price: Thing | None, unit_amount: int) -> Thing:
    details = {"price": of_price["id"], "product": of_price["product"]} if of_price else None
    return {"price_details": details, "type": "price_details", "unit_amount_decimal": str(unit_amount)}


def line_item(line_id: str, *, invoice_id: str, amount: int, currency: str, period: Thing, quantity: int = 1) -> Thing:
    return {
        "id": line_id,
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": dict(period),
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }


def parent_of_subscription_line(item: Thing, subscription_id: str) -> Thing:
    details = {
        "invoice_item": None,
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": subscription_id,
        "subscription_item": item["id"],
    }
    return {"invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details"}


def parent_of_item_line(item: Thing) -> Thing:
    """A proration names the item of the subscription; another invoice item only itself."""
    of_subscription = (item["parent"] or {}).get("subscription_details") or {}
    details = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None},
        "subscription": of_subscription.get("subscription"),
    }
    if not of_subscription.get("subscription_item"):
        return {"invoice_item_details": details, "subscription_item_details": None, "type": "invoice_item_details"}
    details["subscription_item"] = of_subscription["subscription_item"]
    return {"invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details"}


def parent_of_invoice(subscription_id: str, metadata: Thing) -> Thing:
    details = {"metadata": dict(metadata), "subscription": subscription_id}
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def invoice_item(item_id: str, at: int, of_customer: Thing, *, amount: int, currency: str, quantity: int) -> Thing:
    return {
        "id": item_id,
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": of_customer["id"],
        "customer_account": None,
        "date": at,
        "description": None,
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "net_amount": amount,
        "parent": None,
        "period": {"end": at, "start": at},
        "pricing": None,
        "proration": False,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": of_customer["test_clock"],
    }


def payment_intent(intent_id: str, at: int, *, of_customer: str, amount: int, currency: str) -> Thing:
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": f"{intent_id}_secret_test",
        "confirmation_method": "automatic",
        "created": at,
        "currency": currency,
        "customer": of_customer,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }


def invoice_payment(payment_id: str, at: int, *, invoice_id: str, intent: Thing) -> Thing:
    return {
        "id": payment_id,
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": intent["amount"],
        "created": at,
        "currency": intent["currency"],
        "invoice": invoice_id,
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }


def charge(charge_id: str, at: int, *, intent: Thing, method: Thing) -> Thing:
    return {
        "id": charge_id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": dict(method["billing_details"]),
        "calculated_statement_descriptor": None,
        "captured": True,
        "created": at,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "on_behalf_of": None,
        "outcome": None,
        "paid": True,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "card": {
                name: method["card"][name] for name in ("brand", "country", "exp_month", "exp_year", "funding", "last4")
            },
            "type": "card",
        },
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded",
        "transfer_data": None,
        "transfer_group": None,
    }


def dispute(dispute_id: str, at: int, of_charge: Thing, status: str) -> Thing:
    is_inquiry = status.startswith("warning")
    return {
        "id": dispute_id,
        "object": "dispute",
        "amount": of_charge["amount"],
        "balance_transactions": [],
        "charge": of_charge["id"],
        "created": at,
        "currency": of_charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": at + DISPUTE_ANSWER_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": is_inquiry,
        "livemode": False,
        "metadata": {},
        "payment_intent": of_charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": of_charge["payment_method_details"]["card"]["brand"],
                "case_type": "inquiry" if is_inquiry else "chargeback",
                "network": of_charge["payment_method_details"]["card"]["brand"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": "fraudulent",
        "status": status,
    }


def test_clock(clock_id: str, at: int, frozen_time: int, name: str | None) -> Thing:
    return {
        "id": clock_id,
        "object": "test_helpers.test_clock",
        "created": at,
        "deletes_after": at + 30 * 86_400,
        "frozen_time": frozen_time,
        "livemode": False,
        "name": name,
        "status": "ready",
        "status_details": {},
    }
