#!/usr/bin/env bash
# What the outbox costs: how many messages a second are accepted durably, and what a message that SES
# takes at once waits for us.
#
#   cargo build --release
#   LAB=path/to/lab CARGO_TARGET_DIR=where/the/lab/is/built benches/outbox.sh [ROUNDS]
#
# The lab is built by its own install.sh. BULKHEAD_BIN names the binary if it is not target/release's,
# BULKHEAD_DATA a folder on the disk in question.
#
# Durable: `handoff = "queue"`, 10 KB, 64 connections, STARTTLS and AUTH; every 250 is a body file and
# a row on the disk. SES meanwhile takes 200 recipients a second, as an account may. The disk's own
# time for one fdatasync is measured beside it.
# Added latency: `handoff = "through"`, one connection, SES answering after 20 ms: total_ms less ses_ms
# of the verdict lines.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LAB:?names the folder of the performance lab}"
. "$LAB/lib.sh"
. "$here/bulkhead.sh"
rounds=${1:-3}
trap 'kill ${MOCK_PID:-} ${PEER_PIDS:-} 2>/dev/null' EXIT
load() { "$BIN/smtp-load" --addr "$PEER_ADDR" --tls starttls --auth plain "$@"; }

echo "## One fdatasync of a small append, on the same disk"
python3 - "${BULKHEAD_DATA:-$RUN}" <<'P'
import os, statistics, sys, time
folder = sys.argv[1] if os.path.isdir(sys.argv[1]) else os.path.dirname(sys.argv[1]) or "."
path = os.path.join(folder, "fdatasync-probe")
fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
times = []
for _ in range(200):
    os.write(fd, b"x" * 4096)
    began = time.perf_counter()
    os.fdatasync(fd)
    times.append((time.perf_counter() - began) * 1000)
os.close(fd)
os.unlink(path)
times.sort()
print(f"median {statistics.median(times):.2f} ms, 90 % {times[180]:.2f} ms")
P

echo "## Durable messages of 10 KB over 64 connections"
mock_start --latency-ms 0
for ((round = 1; round <= rounds; round++)); do
  export BULKHEAD_HANDOFF=queue
  export BULKHEAD_SETTINGS=$'[outbox]\nmessages = 1000000\nmessages_per_tenant = 1000000\ndisk_reserve_bytes = 0'
  export BULKHEAD_SEND_RATE=200
  peer_start
  load --conns 64 --msgs 2000 --size 10240 > /dev/null
  before=$(awk '{print $14 + $15}' "/proc/$PEER_PIDS/stat")
  load --conns 64 --msgs 20000 --size 10240 > "$RUN/durable.json"
  after=$(awk '{print $14 + $15}' "/proc/$PEER_PIDS/stat")
  python3 - "$RUN/durable.json" "$((after - before))" "$(getconf CLK_TCK)" <<'P'
import json, sys
run = json.load(open(sys.argv[1]))
cpu = int(sys.argv[2]) / int(sys.argv[3]) / run["ok"] * 1e6
assert run["ok"] == 20000, run
print(f"{run['msgs_per_s']:.0f} messages/s, {cpu:.0f} us of CPU a message, p50 {run['msg_ms']['p50']:.0f} ms, p99 {run['msg_ms']['p99']:.0f} ms")
P
  peer_stop
done
mock_stop

echo "## Added to SES's own answer"
mock_start --latency-ms 20
for ((round = 1; round <= rounds; round++)); do
  export BULKHEAD_HANDOFF=through BULKHEAD_SETTINGS= BULKHEAD_SEND_RATE=
  peer_start
  load --conns 1 --msgs 500 --size 10240 > /dev/null
  peer_stop
  python3 - "$RUN/bulkhead/log.jsonl" <<'P'
import json, statistics, sys
lines = [json.loads(line) for line in open(sys.argv[1]) if '"message_relayed"' in line]
added = sorted(line["total_ms"] - line["ses_ms"] for line in lines)
ses = statistics.median(line["ses_ms"] for line in lines)
assert len(added) == 500, len(added)
print(f"median {statistics.median(added):.3f} ms, 99 % {added[495]:.3f} ms, beside {ses:.1f} ms at SES")
P
done
