# Bulkhead as a peer of the performance lab (a file the lab's run-peers.sh sources):
#
#   cargo build --release
#   cd LAB && LAB_PEERS="floor-sdk CHECKOUT/benches/bulkhead.sh" ./run-peers.sh
#
# BULKHEAD_BIN names the binary if it is not the one built above. BULKHEAD_HANDOFF is how its stream is
# handed over (through, queue); BULKHEAD_SETTINGS are lines of settings, sections first; BULKHEAD_DATA
# is another place for its data folder; BULKHEAD_SEND_RATE is aws.max_send_rate.
BULKHEAD_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PEER_DRAIN=mock
PEER_ADDR=127.0.0.1:2935
PEER_SCALE=8
peer_start() {
  local d=$RUN/bulkhead bin=${BULKHEAD_BIN:-${CARGO_TARGET_DIR:-$BULKHEAD_ROOT/target}/release/bulkhead}
  [ -x "$bin" ] || return 77
  local data=${BULKHEAD_DATA:-$d/data}
  rm -rf "$d" "$data"; mkdir -p "$d"
  cat > "$d/bulkhead.toml" <<C
hostname = "relay.test"
data_dir = "$data"
tenants_file = "$d/tenants.toml"
[[listener]]
address = "$PEER_ADDR"
tls = "starttls"
[tls]
certificate_file = "${LAB_CERT:-$CERTS/ec.chain}"
private_key_file = "${LAB_KEY:-$CERTS/ec.key}"
[limits]
connections = 12000
connections_per_ip = 12000
connections_per_tenant = 12000
handshakes = 512
messages_per_connection = 1000000
[aws]
region = "eu-west-1"
ses_endpoint_url = "${LAB_SES:-http://$MOCK_HTTP}"
sqs_endpoint_url = "${LAB_SES:-http://$MOCK_HTTP}"
calls_in_flight = 512
${BULKHEAD_SEND_RATE:+max_send_rate = $BULKHEAD_SEND_RATE}
[admin]
address = "127.0.0.1:2936"
${BULKHEAD_SETTINGS:-}
C
  cat > "$d/tenants.toml" <<C
[[tenant]]
id = "load"
senders = ["sender.test"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "load-transactional"
exposure = false
handoff = "${BULKHEAD_HANDOFF:-through}"
[[tenant.credential]]
username = "user"
secret_hash = "sha256:$(printf pass | sha256sum | cut -d' ' -f1)"
C
  AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY=example AWS_EC2_METADATA_DISABLED=true AWS_CA_BUNDLE="$CERTS/ca.pem" \
    env -u BULKHEAD_BIN -u BULKHEAD_HANDOFF -u BULKHEAD_SETTINGS -u BULKHEAD_DATA -u BULKHEAD_SEND_RATE "$bin" --config "$d/bulkhead.toml" serve > "$d/log.jsonl" 2> "$d/err" &
  PEER_PIDS=$!
  wait_port $PEER_ADDR
}
peer_stop() { stop_pids $PEER_PIDS; }
