"""Whatever way an owner's facts take, who has heard them all knows what the owner knows."""

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.values import Status
from dislocate.core.catalog.messages import InstanceRecord, Manifest
from dislocate.core.catalog.publisher import split_manifest
from dislocate.core.catalog.records import OwnerRecords
from dislocate.core.identity import NodeId

IDS = tuple(f"{'long-' * 24}{letter}" for letter in "abcdefgh")  # so long that eight need several parts

# What an owner does: (restart, or put or remove an instance).
deeds = st.lists(
    st.one_of(
        st.just(("restart", "")),
        st.tuples(st.just("put"), st.sampled_from(IDS)),
        st.tuples(st.just("remove"), st.sampled_from(IDS)),
    ),
    max_size=25,
)


def told(doings) -> tuple[dict[str, tuple[int, int]], list[InstanceRecord | Manifest]]:
    """What the owner has in the end, as (boot, version) by id, and everything that it said on the way there."""
    boot, version, facts = 1, 0, []
    live: dict[str, int] = {}

    def record(instance_id):
        live[instance_id] = version
        owner = NodeId("fra", "a1", boot)
        facts.append(InstanceRecord(owner, version, instance_id, "web", "h", 1, (), {}, version, Status.PASSING))

    def manifest():
        facts.extend(split_manifest(NodeId("fra", "a1", boot), version, list(live.items())))

    for deed, instance_id in [("restart", ""), *doings]:
        version += 1
        if deed == "restart":
            boot, version = boot + 1, 0
            for known in list(live):
                version += 1
                record(known)
            version += 1
            manifest()
        elif deed == "put":
            is_new = instance_id not in live
            record(instance_id)
            if is_new:
                version += 1
                manifest()
        elif live.pop(instance_id, None) is not None:
            manifest()
    return {one: (boot, live[one]) for one in live}, facts


def merged(facts) -> OwnerRecords:
    view = OwnerRecords()
    for fact in facts:
        if isinstance(fact, InstanceRecord):
            view.add(fact)
        else:
            view.replace(fact)
    return view


def known(view: OwnerRecords) -> dict[str, tuple[int, int]]:
    return {one: (record.owner.boot, record.version) for one, record in view.records.items()}


@given(deeds, st.data())
def test_any_order_with_duplicates_converges_to_the_owners_state(doings, data):
    state, facts = told(doings)
    order = data.draw(st.permutations(facts))
    again = data.draw(st.lists(st.sampled_from(facts), max_size=10))
    view = merged([*order, *again])
    assert known(view) == state


@given(deeds, st.data())
def test_equal_content_has_an_equal_fingerprint(doings, data):
    _, facts = told(doings)
    one, other = merged(facts), merged(data.draw(st.permutations(facts)))
    assert (one.content, one.stamp) == (other.content, other.stamp)
    assert (one.content == 0) == (not one.records)


@given(deeds)
def test_what_is_heard_again_is_no_news(doings):
    _, facts = told(doings)
    view = merged(facts)
    assert not any(view.add(fact) if isinstance(fact, InstanceRecord) else view.replace(fact)[0] for fact in facts)


@given(deeds, st.data())
def test_a_repair_alone_is_enough(doings, data):
    """Two views with different parts of the story agree after each has told the other all that it keeps."""
    state, facts = told(doings)
    half = data.draw(st.lists(st.sampled_from(facts), max_size=20))
    full, partial = merged(facts), merged(half)
    for fact in [*full.records.values(), *full.manifest]:
        partial.add(fact) if isinstance(fact, InstanceRecord) else partial.replace(fact)
    assert known(partial) == state
    before = full.content
    for fact in [*partial.records.values(), *partial.manifest]:
        full.add(fact) if isinstance(fact, InstanceRecord) else full.replace(fact)
    assert full.content == before
