#!/usr/bin/env bash
# Question: a scheduler sends SIGTERM to torchrun; all workers catch it, save and exit with status 0. With which
# status does torchrun end?
# Guess: 0, as all of its workers did.
# Seen with torch 2.12.1: torchrun passes the signal on, the workers exit with 0, and torchrun itself raises
# SignalException and ends with status 1. A job script cannot tell a clean stop from a failure by the status. Fails if
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 numpy==2.4.6
cat >"$folder/worker.py" <<'PY'
import os
import signal
import sys
import time


def stop(number: int, _: object) -> None:
    with open(f"{sys.argv[1]}/stopped{os.environ['RANK']}", "w") as file:
        file.write("saved, exit 0")
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
open(f"{sys.argv[1]}/ready{os.environ['RANK']}", "w").close()
time.sleep(60)
PY
"$folder/env/bin/torchrun" --standalone --nproc-per-node 2 "$folder/worker.py" "$folder" >"$folder/out" 2>&1 &
launcher=$!
for _ in $(seq 240); do
  [[ -e "$folder/ready0" && -e "$folder/ready1" ]] && break
  sleep 0.5
done
kill -TERM "$launcher"
status=0
wait "$launcher" || status=$?
echo "workers: $(cat "$folder/stopped0"); $(cat "$folder/stopped1"); torchrun: status $status"
grep -q SignalException "$folder/out"
[[ $status == 1 ]]
