"""Listens to a stream by httpx-sse, which leaves coming back to its caller."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url = sys.argv[1]
cursor, pause = "", 1.0
# A stream that is silent for more than two pings is dead.
with httpx.Client(timeout=httpx.Timeout(10, read=40)) as client:
    while True:
        headers = {"Last-Event-ID": cursor} if cursor else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    cursor = event.id or cursor
                    if event.retry is not None:
                        pause = event.retry / 1000
                    line = {"event": event.event, "id": event.id, "data": event.json()}
                    print(json.dumps(line), flush=True)
        except httpx.TransportError:
            pass  # broken or refused: the same as a proper end
        time.sleep(pause)
