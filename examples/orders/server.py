"""The orders service, as many of them as you start: any free port, found by name."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - after the patch
import logging  # noqa: E402
import os  # noqa: E402

from dislocate.client import serve  # noqa: E402


def app(environ, start_response):
    order = environ["PATH_INFO"].rpartition("/")[2]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"order": order, "served_by": os.getpid()}).encode()]


logging.basicConfig(level=logging.INFO, format="%(message)s")
serve(app, "orders.api", workers=20)
