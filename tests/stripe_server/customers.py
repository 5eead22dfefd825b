"""Customers and what they pay with; products and prices."""

from tests.stripe_server import shapes
from tests.stripe_server.cards import GOOD, TEST_CARDS
from tests.stripe_server.invoices import merged
from tests.stripe_server.refusals import declined, invalid, required
from tests.stripe_server.standing import ENDED, end
from tests.stripe_server.world import Thing, World

_SETTINGS = ("name", "email", "phone", "description", "metadata")


def create(world: World, params: Thing) -> Thing:
    clock = params.get("test_clock")
    if clock:
        world.named("test_helpers.test_clock", clock, "test_clock")
    customer = shapes.customer(world.new_id("cus"), world.time(clock), clock)
    world.add(customer)
    customer.update({name: params[name] for name in _SETTINGS if name in params}, balance=params.get("balance", 0))
    if "payment_method" in params:
        attach(world, {"customer": customer["id"]}, params["payment_method"])
    customer["invoice_settings"] = _invoice_settings(world, customer, params)
    world.emit("customer.created", customer)
    return customer


def update(world: World, params: Thing, customer_id: str) -> Thing:
    customer = world.named("customer", customer_id, "id")
    fields = {name: params[name] for name in (*_SETTINGS, "balance") if name in params}
    if "metadata" in fields:
        fields["metadata"] = merged(customer["metadata"], fields["metadata"])
    fields["invoice_settings"] = _invoice_settings(world, customer, params)
    return world.change(customer, "customer.updated", **fields)


def _invoice_settings(world: World, customer: Thing, params: Thing) -> Thing:
    """A token that has just been attached stands for the method it became."""
    asked = dict(params.get("invoice_settings", {}))
    method = asked.get("default_payment_method")
    if method in TEST_CARDS:
        method = asked["default_payment_method"] = _newest_method(world, customer)
    if method:
        found = world.named("payment_method", method, "invoice_settings[default_payment_method]")
        if found["customer"] != customer["id"]:
            raise invalid(
                "The customer does not have a payment method with this ID.",
                param="invoice_settings[default_payment_method]",
            )
    return {**customer["invoice_settings"], **asked}


def _newest_method(world: World, customer: Thing) -> str | None:
    own = [method["id"] for method in world.of("payment_method") if method["customer"] == customer["id"]]
    return str(own[-1]) if own else None


def delete(world: World, _params: Thing, customer_id: str) -> Thing:
    """Its subscriptions end at once."""
    customer = world.named("customer", customer_id, "id")
    for subscription in world.of("subscription"):
        if subscription["customer"] == customer_id and subscription["status"] not in ENDED:
            end(world, subscription, "cancellation_requested")
    world.emit("customer.deleted", customer)
    customer["deleted"] = True
    return _deleted(customer)


def retrieve(world: World, _params: Thing, customer_id: str) -> Thing:
    customer = world.get("customer", customer_id)
    return _deleted(customer) if customer.get("deleted") else customer


def _deleted(customer: Thing) -> Thing:
    return {"id": customer["id"], "object": "customer", "deleted": True}


# ------------------------------------------------------------------------------------------------------------- payment methods


def create_method(world: World, params: Thing) -> Thing:
    """Of `card[token]`, one of Stripe's tokens for testing (`tok_visa`), or of any number, which is a good card."""
    token = str((params.get("card") or {}).get("token", "tok_visa")).replace("tok_", "pm_card_", 1)
    if token not in TEST_CARDS:
        raise invalid(f"No such token: '{token}'", code="resource_missing", param="card[token]")
    return _new_method(world, token, world.now)


def _new_method(world: World, token: str, at: int) -> Thing:
    method = shapes.payment_method(world.new_id("pm"), at, TEST_CARDS[token])
    world.cards[method["id"]] = TEST_CARDS[token]
    return world.add(method)


def attach(world: World, params: Thing, method_id: str) -> Thing:
    """A token such as `pm_card_visa` becomes a new method; a card that refuses everything refuses this too."""
    if "customer" not in params:
        raise required("customer")
    customer = world.named("customer", params["customer"], "customer")
    card = TEST_CARDS.get(method_id) or world.cards.get(method_id, GOOD)
    if not card.attaches and card.refusal:
        raise declined(*card.refusal)
    method = (
        _new_method(world, method_id, world.time_of(customer))
        if method_id in TEST_CARDS
        else world.get("payment_method", method_id)
    )
    if method["customer"] not in {None, customer["id"]}:
        raise invalid("The payment method you provided has already been attached to a customer.")
    method["customer"] = customer["id"]
    world.emit("payment_method.attached", method)
    return method


def detach(world: World, _params: Thing, method_id: str) -> Thing:
    method = world.get("payment_method", method_id)
    customer = world.find("customer", method["customer"])
    if customer and customer["invoice_settings"]["default_payment_method"] == method_id:
        settings = {**customer["invoice_settings"], "default_payment_method": None}
        world.change(customer, "customer.updated", invoice_settings=settings)
    return world.change(method, "payment_method.detached", customer=None)


# --------------------------------------------------------------------------------------------------------- products and prices


def create_product(world: World, params: Thing) -> Thing:
    product = shapes.product(params.get("id") or world.new_id("prod"), world.now, params["name"])
    product.update({name: params[name] for name in ("description", "metadata", "active") if name in params})
    world.emit("product.created", world.add(product))
    return product


def create_price(world: World, params: Thing) -> Thing:
    product_id = params.get("product") or create_product(world, _product_of(params))["id"]
    world.named("product", product_id, "product")
    if "unit_amount" not in params:
        raise required("unit_amount")
    recurring = params.get("recurring")
    if recurring:
        recurring = {
            "interval_count": 1,
            "meter": None,
            "trial_period_days": None,
            "usage_type": "licensed",
            **recurring,
        }
    price = shapes.price(
        world.new_id("price"),
        world.now,
        product_id=product_id,
        currency=params["currency"].lower(),
        unit_amount=params["unit_amount"],
        recurring=recurring,
    )
    price.update({name: params[name] for name in ("nickname", "metadata", "lookup_key", "active") if name in params})
    world.emit("price.created", world.add(price))
    return price


def _product_of(params: Thing) -> Thing:
    if "product_data" not in params:
        raise required("product")
    return {"name": params["product_data"]["name"]}
