"""Which request is answered by what. `takes`: the parameters that are acted on; any other is refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import stripe.params as sdk
from stripe.params.test_helpers import TestClockAdvanceParams, TestClockCreateParams, TestClockRetrieveParams

from tests.stripe_server import clocks, customers, invoices, payments, reading, subscriptions
from tests.stripe_server.world import Thing, World

PAGING = "limit starting_after ending_before"


@dataclass(frozen=True, slots=True)
class Route:
    """`params`: the SDK's type of them."""

    method: str
    path: str
    act: Callable[..., Thing]
    params: type
    takes: frozenset[str]

    def ids_in(self, path: str) -> tuple[str, ...] | None:
        pattern = re.sub(r"\{\w+\}", r"([^/]+)", self.path)
        found = re.fullmatch(pattern, path)
        return found.groups() if found else None


def _route(method: str, path: str, act: Callable[..., Thing], params: Any, takes: str = "") -> Route:
    return Route(method, path, act, params, frozenset(takes.split()))


def _close_dispute(world: World, _params: Thing, dispute_id: str) -> Thing:
    return payments.close_dispute(world, dispute_id, "lost")


ITEM_CHANGE = "proration_behavior proration_date payment_behavior"
CANCELLATION = "cancel_at cancel_at_period_end"
TRIAL = "trial_end trial_settings billing_cycle_anchor"
OF_CUSTOMER = "name email phone description metadata balance invoice_settings"
OF_INVOICE = "auto_advance automatically_finalizes_at collection_method days_until_due due_date default_payment_method"
OF_SUBSCRIPTION = "items metadata description collection_method days_until_due default_payment_method off_session"

ROUTES = (
    _route(
        "GET",
        "/v1/customers",
        reading.many("customer", "/v1/customers"),
        sdk.CustomerListParams,
        f"{PAGING} email created",
    ),
    _route(
        "POST", "/v1/customers", customers.create, sdk.CustomerCreateParams, f"{OF_CUSTOMER} payment_method test_clock"
    ),
    _route(
        "GET",
        "/v1/customers/search",
        reading.searched("customer", "/v1/customers/search"),
        sdk.CustomerSearchParams,
        "query limit page",
    ),
    _route("GET", "/v1/customers/{id}", customers.retrieve, sdk.CustomerRetrieveParams),
    _route("POST", "/v1/customers/{id}", customers.update, sdk.CustomerUpdateParams, OF_CUSTOMER),
    _route("DELETE", "/v1/customers/{id}", customers.delete, sdk.CustomerDeleteParams),
    _route(
        "GET",
        "/v1/customers/{id}/payment_methods",
        reading.methods_of_customer,
        sdk.CustomerPaymentMethodListParams,
        f"{PAGING} type",
    ),
    _route("POST", "/v1/payment_methods", customers.create_method, sdk.PaymentMethodCreateParams, "type card"),
    _route("GET", "/v1/payment_methods/{id}", reading.one("payment_method"), sdk.PaymentMethodRetrieveParams),
    _route("POST", "/v1/payment_methods/{id}/attach", customers.attach, sdk.PaymentMethodAttachParams, "customer"),
    _route("POST", "/v1/payment_methods/{id}/detach", customers.detach, sdk.PaymentMethodDetachParams),
    _route(
        "POST", "/v1/products", customers.create_product, sdk.ProductCreateParams, "id name description metadata active"
    ),
    _route("GET", "/v1/products/{id}", reading.one("product"), sdk.ProductRetrieveParams),
    _route(
        "GET",
        "/v1/prices",
        reading.many("price", "/v1/prices"),
        sdk.PriceListParams,
        f"{PAGING} active currency product type created",
    ),
    _route(
        "POST",
        "/v1/prices",
        customers.create_price,
        sdk.PriceCreateParams,
        "currency product product_data unit_amount recurring nickname metadata lookup_key active",
    ),
    _route("GET", "/v1/prices/{id}", reading.one("price"), sdk.PriceRetrieveParams),
    _route(
        "GET",
        "/v1/subscriptions",
        reading.subscriptions,
        sdk.SubscriptionListParams,
        f"{PAGING} customer status created price",
    ),
    _route(
        "POST",
        "/v1/subscriptions",
        subscriptions.create,
        sdk.SubscriptionCreateParams,
        f"customer {OF_SUBSCRIPTION} {CANCELLATION} {TRIAL} trial_period_days payment_behavior proration_behavior",
    ),
    _route(
        "GET",
        "/v1/subscriptions/search",
        reading.searched("subscription", "/v1/subscriptions/search"),
        sdk.SubscriptionSearchParams,
        "query limit page",
    ),
    _route("GET", "/v1/subscriptions/{id}", reading.one("subscription"), sdk.SubscriptionRetrieveParams),
    _route(
        "POST",
        "/v1/subscriptions/{id}",
        subscriptions.update,
        sdk.SubscriptionUpdateParams,
        f"{OF_SUBSCRIPTION} {CANCELLATION} {TRIAL} {ITEM_CHANGE} pause_collection",
    ),
    _route(
        "DELETE",
        "/v1/subscriptions/{id}",
        subscriptions.cancel,
        sdk.SubscriptionCancelParams,
        "cancellation_details invoice_now prorate",
    ),
    _route("POST", "/v1/subscriptions/{id}/pause", subscriptions.pause, sdk.SubscriptionPauseParams, "type"),
    _route(
        "POST",
        "/v1/subscriptions/{id}/resume",
        subscriptions.resume,
        sdk.SubscriptionResumeParams,
        "billing_cycle_anchor",
    ),
    _route("GET", "/v1/subscription_items", reading.items, sdk.SubscriptionItemListParams, f"{PAGING} subscription"),
    _route("GET", "/v1/subscription_items/{id}", subscriptions.retrieve_item, sdk.SubscriptionItemRetrieveParams),
    _route(
        "POST",
        "/v1/subscription_items/{id}",
        subscriptions.update_item,
        sdk.SubscriptionItemUpdateParams,
        f"price quantity metadata {ITEM_CHANGE}",
    ),
    _route(
        "GET",
        "/v1/invoices",
        reading.many("invoice", "/v1/invoices"),
        sdk.InvoiceListParams,
        f"{PAGING} customer status subscription collection_method created",
    ),
    _route(
        "POST",
        "/v1/invoices",
        invoices.create,
        sdk.InvoiceCreateParams,
        f"customer subscription currency metadata description footer pending_invoice_items_behavior {OF_INVOICE}",
    ),
    _route(
        "GET",
        "/v1/invoices/search",
        reading.searched("invoice", "/v1/invoices/search"),
        sdk.InvoiceSearchParams,
        "query limit page",
    ),
    _route("GET", "/v1/invoices/{id}", reading.one("invoice"), sdk.InvoiceRetrieveParams),
    _route(
        "POST",
        "/v1/invoices/{id}",
        invoices.update,
        sdk.InvoiceUpdateParams,
        f"metadata description footer {OF_INVOICE}",
    ),
    _route("DELETE", "/v1/invoices/{id}", invoices.delete, sdk.InvoiceDeleteParams),
    _route("GET", "/v1/invoices/{id}/lines", reading.lines, sdk.InvoiceLineItemListParams, PAGING),
    _route("POST", "/v1/invoices/{id}/finalize", invoices.finalize, sdk.InvoiceFinalizeInvoiceParams, "auto_advance"),
    _route(
        "POST",
        "/v1/invoices/{id}/pay",
        invoices.pay,
        sdk.InvoicePayParams,
        "payment_method paid_out_of_band off_session",
    ),
    _route("POST", "/v1/invoices/{id}/void", invoices.void, sdk.InvoiceVoidInvoiceParams),
    _route(
        "POST", "/v1/invoices/{id}/mark_uncollectible", invoices.mark_uncollectible, sdk.InvoiceMarkUncollectibleParams
    ),
    _route(
        "GET",
        "/v1/invoiceitems",
        reading.many("invoiceitem", "/v1/invoiceitems"),
        sdk.InvoiceItemListParams,
        f"{PAGING} customer invoice pending created",
    ),
    _route(
        "POST",
        "/v1/invoiceitems",
        invoices.create_item,
        sdk.InvoiceItemCreateParams,
        "amount currency customer description invoice metadata period pricing quantity unit_amount_decimal subscription",
    ),
    _route("GET", "/v1/invoiceitems/{id}", reading.one("invoiceitem"), sdk.InvoiceItemRetrieveParams),
    _route("DELETE", "/v1/invoiceitems/{id}", invoices.delete_item, sdk.InvoiceItemDeleteParams),
    _route(
        "GET",
        "/v1/invoice_payments",
        reading.many("invoice_payment", "/v1/invoice_payments"),
        sdk.InvoicePaymentListParams,
        f"{PAGING} invoice status created",
    ),
    _route("GET", "/v1/payment_intents/{id}", reading.one("payment_intent"), sdk.PaymentIntentRetrieveParams),
    _route(
        "GET",
        "/v1/charges",
        reading.many("charge", "/v1/charges"),
        sdk.ChargeListParams,
        f"{PAGING} customer payment_intent created",
    ),
    _route("GET", "/v1/charges/{id}", reading.one("charge"), sdk.ChargeRetrieveParams),
    _route(
        "GET",
        "/v1/disputes",
        reading.many("dispute", "/v1/disputes"),
        sdk.DisputeListParams,
        f"{PAGING} charge payment_intent created",
    ),
    _route("GET", "/v1/disputes/{id}", reading.one("dispute"), sdk.DisputeRetrieveParams),
    _route("POST", "/v1/disputes/{id}/close", _close_dispute, sdk.DisputeCloseParams),
    _route(
        "GET", "/v1/events", reading.many("event", "/v1/events"), sdk.EventListParams, f"{PAGING} type types created"
    ),
    _route("GET", "/v1/events/{id}", reading.one("event"), sdk.EventRetrieveParams),
    _route("POST", "/v1/test_helpers/test_clocks", clocks.create, TestClockCreateParams, "frozen_time name"),
    _route("GET", "/v1/test_helpers/test_clocks/{id}", reading.one("test_helpers.test_clock"), TestClockRetrieveParams),
    _route(
        "POST", "/v1/test_helpers/test_clocks/{id}/advance", clocks.advance_clock, TestClockAdvanceParams, "frozen_time"
    ),
)


def route_for(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """The first that fits: fixed paths stand before those with an id."""
    for route in ROUTES:
        ids = route.ids_in(path) if route.method == method else None
        if ids is not None:
            return route, ids
    return None
