"""The service that `bench.http` measures: 200 bytes of JSON, the same function under each server."""

import sys
from typing import Any

BODY = b'{"order": 7, "lines": [' + b", ".join([b'{"item": %d}' % item for item in range(10)]) + b"]}"


def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [BODY]


def main() -> None:
    """`python -m bench.hello serve|pywsgi HOST PORT`"""
    which, host, port = sys.argv[1:4]
    if which == "serve":
        from dislocate.client import serve

        serve(app, "bench.hello", host=host, port=int(port), grace=0.1)
    else:  # gevent.pywsgi as its documentation shows it
        from gevent.pywsgi import WSGIServer

        WSGIServer((host, int(port)), app, log=None).serve_forever()


if __name__ == "__main__":
    main()
