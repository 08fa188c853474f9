"""A gevent service that an agent starts as often as scaling wants: `python -m tests.support.scaled_service NAME`.

Each request takes a tenth of a second, and two are served at a time: 20 a second."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - after the patch
import sys  # noqa: E402

import gevent  # noqa: E402

from dislocate.client import serve  # noqa: E402


def app(environ, start_response):
    gevent.sleep(0.1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ["PORT"].encode()]


if __name__ == "__main__":
    serve(app, sys.argv[1], host=os.environ["ADDRESS"], workers=2, grace=0.5, finish=5.0)
