#!/bin/sh
# Serves the demo page alone, for use with chat-service and broadcast-sse (see config.json).
# usage: run.sh [[HOST:]PORT]   (default 127.0.0.1:8000)
set -eu
command -v python3 >/dev/null || {
    echo "run.sh needs python3: apt-get install python3" >&2
    exit 1
}
exec python3 "$(dirname "$0")/serve.py" "$@"
