"""Pages, search, `expand`, and requests that are not understood."""

from datetime import timedelta

import pytest
import stripe
from stripe import StripeClient
from stripe._base_address import BaseAddresses

from tests.stripe_server.playing import Shop, moment
from tests.stripe_server.server import StripeServer


def test_pages_go_from_the_newest_to_the_oldest(shop: Shop, stripe_server: StripeServer) -> None:
    """The SDK's own paging finds each once; by customer, by status, by time."""
    v1, customer, other = shop.client.v1, shop.customer(), shop.customer()
    made = [shop.draft(customer, 500).id for _ in range(5)]
    shop.draft(other, 500)
    first = v1.invoices.list({"customer": customer.id, "limit": 2})
    assert ([invoice.id for invoice in first.data], first.has_more) == ([made[4], made[3]], True)
    assert [invoice.id for invoice in first.auto_paging_iter()] == made[::-1]
    before = v1.invoices.list({"customer": customer.id, "limit": 2, "ending_before": made[1]})
    assert [invoice.id for invoice in before.data] == [made[3], made[2]]
    stripe_server.advance(timedelta(hours=1))
    late = shop.open(customer, 500)
    assert [each.id for each in v1.invoices.list({"created": {"gt": moment(6, 1)}}).data] == [late.id]
    assert [each.id for each in v1.invoices.list({"status": "open"}).data] == [late.id]


def test_a_list_of_subscriptions_leaves_out_the_canceled(shop: Shop) -> None:
    """Unless they are asked for."""
    v1, customer, price = shop.client.v1, shop.customer(), shop.price(3000)
    kept, gone = shop.subscription(customer, price), shop.subscription(customer, price)
    v1.subscriptions.cancel(gone.id)
    assert [each.id for each in v1.subscriptions.list({"customer": customer.id}).data] == [kept.id]
    assert [each.id for each in v1.subscriptions.list({"status": "canceled"}).data] == [gone.id]
    assert len(v1.subscriptions.list({"status": "all"}).data) == 2


def test_search_finds_by_metadata_after_a_minute(shop: Shop, stripe_server: StripeServer) -> None:
    """Behind, as Stripe says its search is: no way to learn whether a request of a second ago took effect."""
    v1, customer = shop.client.v1, shop.customer()
    wanted = shop.draft(customer, 500, metadata={"meterbook_charge": "it's 7"})
    shop.draft(customer, 500, metadata={"meterbook_charge": "8"})
    query = r"metadata['meterbook_charge']:'it\'s 7'"
    assert v1.invoices.search({"query": query}).data == []
    stripe_server.advance(timedelta(minutes=1))
    assert [each.id for each in v1.invoices.search({"query": query}).data] == [wanted.id]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status:'open' AND total>500", ["b"]),
        ("status:'open' OR status:'draft'", ["c", "b", "a"]),
        ('-status:"draft"', ["b", "a"]),
        ("metadata['name']~'A'", ["a"]),
        ("total<=500", ["a"]),
        ("metadata['absent']:null", ["c", "b", "a"]),
    ],
)
def test_search_knows_stripes_query_language(
    shop: Shop, stripe_server: StripeServer, query: str, found: list[str]
) -> None:
    """Comparisons, negation, substrings, and clauses joined by one of AND and OR."""
    customer = shop.customer()
    for name, cents, act in (("a", 500, shop.open), ("b", 900, shop.open), ("c", 900, shop.draft)):
        act(customer, cents, metadata={"name": name})
    stripe_server.advance(timedelta(minutes=1))
    names = [plain["metadata"]["name"] for plain in shop.client.v1.invoices.search({"query": query}).to_dict()["data"]]
    assert names == found


@pytest.mark.parametrize("query", ["", "status", "status:'a' AND total>1 OR total<2", "status:'open"])
def test_a_query_that_is_none_is_refused(shop: Shop, query: str) -> None:
    """Rather than understood as something else."""
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.invoices.search({"query": query})


def test_expand_puts_objects_in_place_of_ids(shop: Shop) -> None:
    """Also inside of lists, and several levels down; a field that is none is refused."""
    v1, customer = shop.client.v1, shop.customer(name="Ada")
    subscription = shop.subscription(customer, shop.price(3000))
    expand = ["customer", "latest_invoice.payments.data.payment.payment_intent"]
    found = v1.subscriptions.retrieve(subscription.id, {"expand": expand}).to_dict()
    assert found["customer"]["name"] == "Ada"
    assert found["latest_invoice"]["payments"]["data"][0]["payment"]["payment_intent"]["amount_received"] == 3000
    listed = v1.subscriptions.list({"expand": ["data.customer"]}).to_dict()
    assert listed["data"][0]["customer"]["name"] == "Ada"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        v1.subscriptions.retrieve(subscription.id, {"expand": ["colour"]})


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"metadata": {"a": {"b": "c"}}}, None, "metadata"),
        ({"days_until_due": "soon"}, "parameter_invalid_integer", "days_until_due"),
        ({"auto_advance": "perhaps"}, None, "auto_advance"),
        ({"collection_method": "by_pigeon"}, None, "collection_method"),
        ({"customer": "cus_none"}, "resource_missing", "customer"),
        ({"metadata": {"k": "v" * 501}}, None, "metadata[k]"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    shop: Shop, params: "dict[str, object]", code: str | None, param: str
) -> None:
    """400, with Stripe's code, before anything is done."""
    given = {"customer": shop.customer().id, **params}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.client.v1.invoices.create(given)  # type: ignore[arg-type]
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)


def test_what_is_not_acted_on_is_never_ignored(shop: Shop) -> None:
    """A parameter that Stripe has and this server lacks: 501, so that no test passes because of it."""
    with pytest.raises(stripe.APIError, match="doesn't do this: parameter automatic_tax") as refused:
        shop.client.v1.invoices.create({"customer": shop.customer().id, "automatic_tax": {"enabled": True}})
    assert refused.value.http_status == 501


def test_only_test_keys_and_one_version_are_served(stripe_server: StripeServer) -> None:
    """A live key is refused, and a client that speaks another version of the API."""
    addresses: BaseAddresses = {"api": stripe_server.url}
    with pytest.raises(stripe.AuthenticationError):
        StripeClient("sk_live_x", base_addresses=addresses).v1.customers.list()
    with pytest.raises(stripe.InvalidRequestError, match="2020-08-27"):
        StripeClient("sk_test_x", base_addresses=addresses, stripe_version="2020-08-27").v1.customers.list()


def test_an_unknown_path_is_refused(shop: Shop) -> None:
    """404, named."""
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        shop.client.v1.coupons.list()
