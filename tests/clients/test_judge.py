"""moto as an independent judge: our AWS calls mean to another implementation what they mean to us."""

import json
import smtplib
import ssl
import time
import urllib.request

import boto3
import pytest
from moto.server import ThreadedMotoServer

from conftest import PATIENCE, ROOT, Relay

REGION = "eu-west-1"
EVENTS = ROOT / "tests" / "events"


def client(service, url):
    return boto3.client(service, endpoint_url=url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def wiring(moto):
    """A queue that SNS feeds, with a dead-letter queue, and the identities of both tenants."""
    sqs, sns, ses = client("sqs", moto), client("sns", moto), client("sesv2", moto)
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = sqs.create_queue(QueueName="events", Attributes={
        "VisibilityTimeout": "1",
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "2"}),
    })["QueueUrl"]
    events_arn = sqs.get_queue_attributes(QueueUrl=events, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="ses-events")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=events_arn)
    for name in ["acme", "globex"]:
        ses.create_email_identity(EmailIdentity=f"{name}.example")
        ses.create_configuration_set(ConfigurationSetName=f"{name}-transactional")
    return {"sqs": sqs, "sns": sns, "queue": events, "dead": dead, "topic": topic}


@pytest.fixture(scope="module")
def judged(tmp_path_factory, ca, moto, wiring):
    relay = Relay(tmp_path_factory.mktemp("judged"), ca, moto, moto, wiring["queue"])
    yield relay
    assert relay.process.stop() == 0


def send(relay, message, recipients):
    with smtplib.SMTP("localhost", relay.starttls, timeout=PATIENCE) as smtp:
        smtp.starttls(context=ssl.create_default_context(cafile=str(relay.ca_file)))
        smtp.login(relay.acme.username, relay.acme.secret)
        return smtp.sendmail("app@acme.example", recipients, message)


def held_by_moto(url):
    with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=PATIENCE) as answer:
        return json.load(answer)["ses"].get("RawMessage", [])


def left(wiring, which):
    attributes = wiring["sqs"].get_queue_attributes(QueueUrl=wiring[which], AttributeNames=[
        "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"])["Attributes"]
    return sum(int(v) for v in attributes.values())


def until(what):
    """Asks again until it holds; moto has nothing that could tell us."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came to be"


def test_raw_content_arrives_whole(judged, moto):
    body = b"".join(b"line %d of the body, with a tab\t and trailing space \r\n" % i for i in range(200))
    message = (b"From: App <app@acme.example>\r\nTo: one@dest.example\r\nBcc: hidden@dest.example\r\n"
               b"X-SES-CONFIGURATION-SET: acme-transactional\r\nSubject: whole\r\n\r\n.dot\r\n") + body
    assert send(judged, message, ["one@dest.example", "two@dest.example"]) == {}
    held = held_by_moto(moto)
    assert len(held) == 2, "one call a recipient"
    for one in held:
        raw = one["raw_data"].encode()
        header, _, got = raw.partition(b"\r\n\r\n")
        assert got == b".dot\r\n" + body
        assert b"bcc" not in header.lower() and b"x-ses-" not in header.lower()
        assert b"hidden@dest.example" not in header
    named = " ".join(json.dumps(one["destinations"]) for one in held)
    assert "one@dest.example" in named and "two@dest.example" in named and "hidden" not in named


def test_an_unverified_identity_is_a_true_5xx(judged, moto):
    client("sesv2", moto).delete_email_identity(EmailIdentity="acme.example")
    try:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(judged, b"From: app@acme.example\r\nSubject: x\r\n\r\nx\r\n", ["one@dest.example"])
        assert 500 <= refused.value.smtp_code < 600, refused.value
    finally:
        client("sesv2", moto).create_email_identity(EmailIdentity="acme.example")


def test_sns_feeds_sqs_feeds_the_store(judged, wiring):
    """An event through moto's SNS and SQS: applied once, deleted, whatever the redeliveries."""
    event = json.loads((EVENTS / "bounce_permanent_noemail.json").read_text())
    event["mail"]["tags"]["tenant"], event["mail"]["tags"]["stream"] = ["acme"], ["transactional"]
    # `tenant show` counts the last seven days.
    event["mail"]["timestamp"] = event["bounce"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    address = event["bounce"]["bouncedRecipients"][0]["emailAddress"]
    for _ in range(3):
        wiring["sns"].publish(TopicArn=wiring["topic"], Message=json.dumps(event))
    # and once more without the envelope, as raw delivery would bring it
    wiring["sqs"].send_message(QueueUrl=wiring["queue"], MessageBody=json.dumps(event))
    judged.process.event("message_bounced", tenant="acme")
    until(lambda: left(wiring, "queue") == 0)
    assert address in json.dumps(judged.command("suppression", "list", "acme"))
    shown = judged.command("tenant", "show", "acme")
    assert '"bounced": 1' in json.dumps(shown), shown
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(judged, b"From: app@acme.example\r\n\r\nx\r\n", [address])


def test_what_cannot_be_read_goes_to_the_dead_letter_queue(judged, wiring):
    wiring["sqs"].send_message(QueueUrl=wiring["queue"], MessageBody='{"eventType": "Bounce", "bounce": ')
    judged.process.event("notice_malformed")
    judged.process.event("notice_malformed")
    until(lambda: left(wiring, "dead") == 1 and left(wiring, "queue") == 0)


def test_an_unknown_kind_is_acknowledged(judged, wiring):
    wiring["sns"].publish(TopicArn=wiring["topic"], Message=json.dumps({"eventType": "Teleport", "mail": {}}))
    judged.process.event("notice_unknown")
    until(lambda: left(wiring, "queue") == 0)
