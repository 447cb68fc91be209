"""The relay as its users meet it: the built binary, its sandbox in a process of its own, real TLS.

`BULKHEAD_BIN` names the binary; `tests/run` sets it.
"""

import base64
import dataclasses
import email
import email.policy
import hashlib
import json
import os
import pathlib
import queue
import secrets
import signal
import subprocess
import threading
import urllib.request

import pytest
import trustme

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = os.environ["BULKHEAD_BIN"]
# Long enough for a loaded machine; nothing sleeps for it, it only ends what hangs.
PATIENCE = 60


def environment():
    """The environment of a child: AWS credentials that no AWS would take, nothing of the caller's."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BULKHEAD_"))}
    return keep | {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Process:
    """A child whose JSON lines are read as they come."""

    def __init__(self, args, cwd):
        self.errors = open(pathlib.Path(cwd) / f"{args[0]}.err", "w+")
        self.child = subprocess.Popen(
            [BIN, *args], cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.lines = []
        self._new = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self._new.put(line)
        self._new.put(None)

    def wait_for(self, wanted):
        """The first JSON value, of those not yet looked at, for which `wanted` holds."""
        text = ""
        while True:
            line = self._new.get(timeout=PATIENCE)
            if line is None:
                self.errors.seek(0)
                raise AssertionError(f"the process ended: {self.errors.read()} {self.lines[-5:]}")
            # a log line is one line; an answer may be spread over several
            text += line
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                continue
            text = ""
            self.lines.append(value)
            if wanted(value):
                return value

    def event(self, name, **fields):
        """The next log line of this event with these fields."""
        return self.wait_for(
            lambda line: line.get("event") == name and all(line.get(k) == v for k, v in fields.items())
        )

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(timeout=PATIENCE)
        self.errors.close()
        return code


def http(url, method="GET", body=None):
    request = urllib.request.Request(url, method=method, data=body)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer) if answer.headers.get("content-type", "").startswith("application/json") else answer.read()


@dataclasses.dataclass
class Sent:
    """A message as SES got it."""

    raw: bytes
    destination: list
    configuration_set: str
    tags: dict

    @property
    def body(self):
        return self.raw.split(b"\r\n\r\n", 1)[1]

    @property
    def parsed(self):
        return email.message_from_bytes(self.raw, policy=email.policy.SMTP)


class Sandbox:
    """`bulkhead sandbox`, and what it got."""

    def __init__(self, folder):
        self.process = Process(["sandbox", "--listen", "127.0.0.1:0", "--json"], folder)
        said = self.process.wait_for(lambda line: "url" in line)
        self.url = said["url"]
        self.queue_url = said["queue_url"]

    def take(self):
        """All messages since the last call."""
        found = http(f"{self.url}/sandbox/messages")
        http(f"{self.url}/sandbox/messages", "DELETE")
        messages = found["messages"] if isinstance(found, dict) else found
        return [
            Sent(
                raw=base64.b64decode(m["raw"]),
                destination=m["destination"],
                configuration_set=m["configuration_set"],
                tags={t["name"]: t["value"] for t in m["tags"]} if isinstance(m["tags"], list) else m["tags"],
            )
            for m in messages
        ]


@dataclasses.dataclass
class Credential:
    username: str
    secret: str


class Relay:
    """`bulkhead serve`, before any SES and SQS."""

    def __init__(self, folder, ca, ses_url, sqs_url, queue_url, extra=""):
        self.folder = folder
        certificate = ca.issue_cert("localhost", "127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(str(folder / "relay.pem"))
        certificate.private_key_pem.write_to_path(str(folder / "relay.key"))
        (folder / "relay.key").chmod(0o600)
        self.ca_file = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca_file))
        self.acme = Credential("acme-app", secrets.token_urlsafe(32))
        self.globex = Credential("globex-app", secrets.token_urlsafe(32))
        (folder / "tenants.toml").write_text(self._tenants())
        (folder / "bulkhead.toml").write_text(
            f"""
hostname = "relay.test"
data_dir = "{folder / 'data'}"
tenants_file = "{folder / 'tenants.toml'}"
[[listener]]
address = "127.0.0.1:0"
tls = "starttls"
[[listener]]
address = "127.0.0.1:0"
tls = "implicit"
[tls]
certificate_file = "{folder / 'relay.pem'}"
private_key_file = "{folder / 'relay.key'}"
[aws]
region = "eu-west-1"
ses_endpoint_url = "{ses_url}"
sqs_endpoint_url = "{sqs_url}"
[events]
queue_url = "{queue_url}"
wait_seconds = 1
[admin]
address = "127.0.0.1:0"
{extra}
"""
        )
        self.process = Process(["--config", str(folder / "bulkhead.toml"), "serve"], folder)
        self.starttls = self._port("starttls")
        self.implicit = self._port("implicit")

    def _port(self, tls):
        return int(self.process.event("listener_opened", tls=tls)["address"].rsplit(":", 1)[1])

    def _tenants(self):
        def tenant(name, credential):
            digest = hashlib.sha256(credential.secret.encode()).hexdigest()
            return f"""
[[tenant]]
id = "{name}"
contact = "ops@{name}.example"
senders = ["{name}.example"]
default_stream = "transactional"
[[tenant.stream]]
id = "transactional"
kind = "transactional"
configuration_set = "{name}-transactional"
[[tenant.stream]]
id = "marketing"
kind = "marketing"
configuration_set = "{name}-marketing"
[[tenant.credential]]
username = "{credential.username}"
secret_hash = "sha256:{digest}"
"""

        return tenant("acme", self.acme) + tenant("globex", self.globex)

    def port(self, tls):
        return self.starttls if tls == "starttls" else self.implicit

    def command(self, *args, check=True):
        """Runs a command beside the relay and returns its JSON."""
        done = subprocess.run(
            [BIN, "--config", str(self.folder / "bulkhead.toml"), *args, "--json"],
            cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture(scope="session")
def ca():
    return trustme.CA()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory):
    box = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield box
    assert box.process.stop() == 0


@pytest.fixture(scope="session")
def relay(tmp_path_factory, ca, sandbox):
    house = Relay(tmp_path_factory.mktemp("relay"), ca, sandbox.url, sandbox.url, sandbox.queue_url)
    yield house
    assert house.process.stop() == 0


@pytest.fixture(autouse=True)
def a_clean_sandbox(request):
    if "sandbox" in request.fixturenames:
        request.getfixturevalue("sandbox").take()
