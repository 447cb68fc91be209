#!/usr/bin/env bash
# CPU of one message, beside the floor: the least relay that the AWS SDK allows (the performance
# lab's relay-floor), on the same work, in turns, in one run.
#
#   cargo build --release
#   LAB=path/to/lab CARGO_TARGET_DIR=where/the/lab/is/built benches/beside-floor.sh [ROUNDS]
#
# The lab is built by its own install.sh. BULKHEAD_BIN names the binary if it is not target/release's.
# Prints a Markdown table: CPU microseconds a message (median over the rounds), and the median of the
# ratios of each round. CPU time is that of the relay's process alone, from /proc.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LAB:?names the folder of the performance lab}"
. "$LAB/lib.sh"
rounds=${1:-5}
results=$(mktemp)
trap 'kill ${MOCK_PID:-} ${PEER_PIDS:-} 2>/dev/null; rm -f "$results"' EXIT
mock_start --latency-ms 0

measure() { # PEER CASE MESSAGES load-args...
  local peer=$1 case=$2 messages=$3
  shift 3
  mock_reset
  python3 "$LAB/meter.py" --pids "$PEER_PIDS" --mock-url "http://$MOCK_HTTP" --expect "$messages" \
    --tag peer="$peer" --tag case="$case" -- \
    "$BIN/smtp-load" --addr "$PEER_ADDR" --tls starttls --auth plain --msgs "$messages" --max-secs 120 "$@" >> "$results"
}

for ((round = 1; round <= rounds; round++)); do
  for peer in "$LAB/peers/floor-sdk.sh" "$here/bulkhead.sh"; do
    . "$peer"
    name=$(basename "$peer" .sh)
    PEER_PIDS=
    peer_start
    "$BIN/smtp-load" --addr "$PEER_ADDR" --tls starttls --auth plain --conns 20 --msgs 500 --size 2048 > /dev/null
    measure "$name" "2 KB" 12000 --conns 20 --size 2048
    measure "$name" "10 KB" 12000 --conns 20 --size 10240
    measure "$name" "100 KB" 3000 --conns 20 --size 102400
    measure "$name" "5 MB" 100 --conns 8 --size 5242880
    measure "$name" "2 KB, one a connection" 3000 --conns 20 --size 2048 --per-conn 1
    peer_stop
  done
done

python3 - "$results" "$rounds" <<'P'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for row in rows:
    assert row["ok"] == row["asked"] == row["delivered"], (row["peer"], row["case"], row["ok"], row["asked"], row["delivered"], row["errors"])
print(f"| message | floor, CPU us | Bulkhead, CPU us | ratio ({sys.argv[2]} rounds: least to most) | Bulkhead, messages/s | peak RSS, MiB |")
print("|---|---|---|---|---|---|")
for case in dict.fromkeys(row["case"] for row in rows):
    floor, ours = ([row for row in rows if row["case"] == case and row["peer"] == peer] for peer in ("floor-sdk", "bulkhead"))
    cpu = lambda row: row["cpu_s_per_1000"] * 1000
    ratios = sorted(cpu(b) / cpu(a) for a, b in zip(floor, ours))
    print("| {} | {:.0f} | {:.0f} | {:.2f} ({:.2f} to {:.2f}) | {:.0f} | {:.0f} |".format(
        case, statistics.median(map(cpu, floor)), statistics.median(map(cpu, ours)), statistics.median(ratios), ratios[0], ratios[-1],
        statistics.median(row["msgs_per_s"] for row in ours), max(row["peak_rss_mib"] for row in ours)))
P
