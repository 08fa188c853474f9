"""Resources: one file a kind, each with `look`, `apply` and `revert`; what they have in common is in `host.work`.

`look` changes nothing and predicts `after` exactly as `apply` makes it.  A `Failure` leaves things as they were.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dislocate.core.boundary import spec
from dislocate.core.boundary.runs import TaskOutcome, TaskVerb
from dislocate.core.boundary.scaling import Webhook
from dislocate.host.resources import command, directory, file, key, package, process, service, webhook
from dislocate.host.work import Work

Does = Callable[[Work, Any], TaskOutcome]  # the resource is of the kind that it is listed for


class Kind(Struct, frozen=True):
    """What can be done about a resource."""

    look: Does
    apply: Does
    revert: Does


KINDS: dict[type, Kind] = {
    spec.File: Kind(file.look, file.apply, file.revert),
    spec.Directory: Kind(directory.look, directory.apply, directory.revert),
    spec.Command: Kind(command.look, command.apply, command.revert),
    spec.Service: Kind(service.look, service.apply, service.revert),
    spec.Process: Kind(process.look, process.apply, process.revert),
    spec.Package: Kind(package.look, package.apply, package.revert),
    spec.Key: Kind(key.look, key.apply, key.revert),
    Webhook: Kind(webhook.look, webhook.apply, webhook.revert),
}


def carry_out(work: Work) -> TaskOutcome:
    """Do what the task says, in this greenlet.  Raises `Failure`."""
    resource = work.task.resource
    kind = KINDS[type(resource)]
    match work.task.verb:
        case TaskVerb.LOOK:
            return kind.look(work, resource)
        case TaskVerb.APPLY:
            return kind.apply(work, resource)
        case TaskVerb.REVERT:
            return kind.revert(work, resource)
