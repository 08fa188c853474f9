"""`python -m dislocate.fleet.calling PLAN`: the callers of one workload on one host, in gevent as most of ours are."""

from gevent import monkey

monkey.patch_all()

from dislocate.fleet.calling.callers import main  # noqa: E402 - after the patch

main()
