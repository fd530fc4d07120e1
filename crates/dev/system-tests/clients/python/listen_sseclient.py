"""Listens to a stream by sseclient-py, which leaves coming back to its caller."""

import json
import sys
import time

import requests
from sseclient import SSEClient

url = sys.argv[1]
cursor, pause = "", 1.0
while True:
    headers = {"Accept": "text/event-stream"}
    if cursor:
        headers["Last-Event-ID"] = cursor
    try:
        # A stream that is silent for more than two pings is dead.
        answer = requests.get(url, headers=headers, stream=True, timeout=(10, 40))
        answer.raise_for_status()
        for event in SSEClient(answer).events():
            cursor = event.id or cursor
            if event.retry is not None:
                pause = int(event.retry) / 1000
            line = {"event": event.event, "id": event.id, "data": json.loads(event.data)}
            print(json.dumps(line), flush=True)
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        pass  # broken or refused: the same as a proper end
    time.sleep(pause)
