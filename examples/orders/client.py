"""Asks the orders service, twice a second; kill servers meanwhile.  `python client.py [TIMES]`"""

import sys
import time

from dislocate.client import Client

with Client() as client:
    orders = client.http("orders.api", timeout=2.0)
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000):
        print(orders.get(f"/orders/{number}").json(), flush=True)
        time.sleep(0.5)
