"""Dialling: how any part of a node opens a link to a member, through what the member says of itself.

A `Hello` goes first, so that the other side knows our key when the link arrives.  Does not wait and does not try again:
whether a link came is told to every part, and what then is each part's own affair.
"""

from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Hello
from dislocate.core.outbox import Outbox


def dial(out: Outbox, members: Members, member: Member, *, owner: str) -> None:
    """Introduce ourselves and dial `member` on behalf of `owner`, who thereby claims the link."""
    record = member.record
    is_home = member.node.datacenter == members.datacenter
    me = members.get(members.own)
    if me is not None:
        out.send_facts(record.gossip if is_home else record.wan_gossip, Hello(me.record, False), ())
    address = record.links if is_home else record.wan_links
    out.open_link(member.node, address, record.public_key, owner=owner)
