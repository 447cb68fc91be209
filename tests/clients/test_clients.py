"""Real clients of several ages against the real binary: what they sent is what SES gets."""

import base64
import email.message
import json
import pathlib
import random
import shutil
import smtplib
import ssl
import subprocess

import pytest

from conftest import HERE, PATIENCE, environment

FROM = "app@acme.example"
TO = "reader@dest.example"
SUBJECT = "Grüße aus Zürich – 5 € 🚢"
ATTACHMENT = bytes(range(256)) * 40
LARGE = 5 * 1024 * 1024
TLS = ["starttls", "implicit"]


def context(relay):
    return ssl.create_default_context(cafile=str(relay.ca_file))


def raw_message(size):
    """A message as an old application would write it: dots, long lines, tabs, trailing space."""
    lines = [
        b"From: App <app@acme.example>", b"To: reader@dest.example", b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
        b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: 8bit", b"",
        b".", b"..", b". leading dot", b"\ttab and trailing space ", "Grüße".encode(), b"x" * 998, b"",
    ]
    rng = random.Random(size)
    total = sum(len(line) + 2 for line in lines)
    while total < size:
        line = bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz .,0123456789", k=76))
        lines.append(line)
        total += len(line) + 2
    return b"\r\n".join(lines) + b"\r\n"


def body_of(message):
    return message.split(b"\r\n\r\n", 1)[1]


def check_sent(relay, sandbox, recipients=(TO,)):
    """SES got one call a recipient, with acme's set and tags; returns the first."""
    sent = sandbox.take()
    assert sorted(d for s in sent for d in s.destination) == sorted(recipients)
    for one in sent:
        assert one.configuration_set == "acme-transactional"
        assert one.tags == {"tenant": "acme", "stream": "transactional", "credential": "acme-app"}
    return sent[0]


def check_built(sent):
    """A message that the client built itself: subject, text and attachment are whole."""
    assert str(sent.parsed["Subject"]) == SUBJECT
    attachments = [part.get_content() for part in sent.parsed.iter_attachments()]
    assert ATTACHMENT in attachments
    assert "Liebe Leserin" in sent.parsed.get_body().get_content()


def smtplib_session(relay, tls):
    if tls == "implicit":
        client = smtplib.SMTP_SSL("localhost", relay.implicit, context=context(relay), timeout=PATIENCE)
    else:
        client = smtplib.SMTP("localhost", relay.starttls, timeout=PATIENCE)
        client.starttls(context=context(relay))
    return client


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib_built(relay, sandbox, tls, mechanism):
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = FROM, TO, SUBJECT
    message.set_content("Liebe Leserin,\n.\n..\nGrüße\n")
    message.add_attachment(ATTACHMENT, maintype="application", subtype="octet-stream", filename="größe.bin")
    with smtplib_session(relay, tls) as client:
        client.ehlo()
        client.user, client.password = relay.acme.username, relay.acme.secret
        code, _ = client.auth(mechanism, client.auth_plain if mechanism == "PLAIN" else client.auth_login)
        assert code == 235
        assert client.send_message(message) == {}
    check_built(check_sent(relay, sandbox))


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("size", [2_000, LARGE])
def test_smtplib_bytes(relay, sandbox, tls, size):
    message = raw_message(size)
    with smtplib_session(relay, tls) as client:
        client.login(relay.acme.username, relay.acme.secret)
        client.sendmail(FROM, [TO], message)
        # several messages on one connection stay in step
        client.sendmail(FROM, [TO], message)
    first, second = sandbox.take()
    assert first.body == second.body == body_of(message)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("size", [2_000, LARGE])
def test_curl(relay, sandbox, tmp_path, tls, size):
    message = raw_message(size)
    (tmp_path / "message.eml").write_bytes(message)
    scheme = "smtps" if tls == "implicit" else "smtp"
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(relay.ca_file),
         "--url", f"{scheme}://localhost:{relay.port(tls)}", "--mail-from", FROM, "--mail-rcpt", TO,
         "--user", f"{relay.acme.username}:{relay.acme.secret}", "--upload-file", str(tmp_path / "message.eml")],
        capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert check_sent(relay, sandbox).body == body_of(message)


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(relay, sandbox, tmp_path, tls, mechanism):
    (tmp_path / "report.bin").write_bytes(ATTACHMENT)
    done = subprocess.run(
        ["swaks", "--server", "localhost", "--port", str(relay.port(tls)),
         "--tls-on-connect" if tls == "implicit" else "--tls", "--tls-verify", "--tls-ca-path", str(relay.ca_file),
         "--auth", mechanism, "--auth-user", relay.acme.username, "--auth-password", relay.acme.secret,
         "--from", FROM, "--to", f"{TO},second@dest.example",
         "--header", "Subject: =?utf-8?b?" + base64.b64encode(SUBJECT.encode()).decode() + "?=",
         "--body", "Liebe Leserin,", "--attach-type", "application/octet-stream",
         "--attach", f"@{tmp_path / 'report.bin'}"],
        capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    check_built(check_sent(relay, sandbox, [TO, "second@dest.example"]))


def test_swaks_large(relay, sandbox, tmp_path):
    message = raw_message(LARGE)
    (tmp_path / "message.eml").write_bytes(message.replace(b"\r\n", b"\n"))
    done = subprocess.run(
        ["swaks", "--server", "localhost", "--port", str(relay.starttls), "--tls", "--tls-ca-path", str(relay.ca_file),
         "--tls-verify", "--auth", "PLAIN", "--auth-user", relay.acme.username, "--auth-password", relay.acme.secret,
         "--from", FROM, "--to", TO, "--data", f"@{tmp_path / 'message.eml'}", "--hide-all"],
        capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert check_sent(relay, sandbox).body.rstrip() == body_of(message).rstrip()


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("size", [1, LARGE])
def test_nodemailer(relay, sandbox, tls, mechanism, size):
    text = "Liebe Leserin,\n.\n" + "Grüße aus Zürich. " * (size // 20)
    job = {
        "port": relay.port(tls), "implicit": tls == "implicit", "ca": relay.ca_file.read_text(),
        "username": relay.acme.username, "secret": relay.acme.secret, "mechanism": mechanism,
        "from": FROM, "to": TO, "subject": SUBJECT, "text": text,
        "attachment_name": "größe.bin", "attachment": base64.b64encode(ATTACHMENT).decode(),
    }
    done = subprocess.run(["node", str(HERE / "nodemailer_send.js")], input=json.dumps(job), capture_output=True,
                          text=True, timeout=PATIENCE, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["response"].startswith("250 2.0.0 Ok ")
    sent = check_sent(relay, sandbox)
    check_built(sent)
    assert sent.parsed.get_body().get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("mechanism", ["plain", "login"])
@pytest.mark.parametrize("size", [2_000, LARGE])
def test_msmtp(relay, sandbox, tmp_path, tls, mechanism, size):
    message = raw_message(size)
    settings = tmp_path / "msmtprc"
    settings.write_text(
        f"account default\nhost localhost\nport {relay.port(tls)}\ntls on\n"
        f"tls_starttls {'off' if tls == 'implicit' else 'on'}\ntls_trust_file {relay.ca_file}\n"
        f"auth {mechanism}\nuser {relay.acme.username}\npassword {relay.acme.secret}\nfrom {FROM}\n")
    settings.chmod(0o600)
    done = subprocess.run(["msmtp", f"--file={settings}", "--", TO], input=message.replace(b"\r\n", b"\n"),
                          capture_output=True, timeout=PATIENCE, env=environment() | {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert check_sent(relay, sandbox).body == body_of(message)


def test_a_wrong_password_is_refused_and_nothing_is_sent(relay, sandbox):
    with smtplib_session(relay, "starttls") as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login(relay.acme.username, "wrong")
        assert refused.value.smtp_code == 535
    assert sandbox.take() == []


def test_a_bounce_decides_the_next_message(relay, sandbox):
    """The circle: a message, its bounce by SNS and SQS, and the next RCPT hears why not."""
    bad = "gone@bounce.test"
    with smtplib_session(relay, "starttls") as client:
        client.login(relay.acme.username, relay.acme.secret)
        client.sendmail(FROM, [bad], raw_message(1_000))
        relay.process.event("message_bounced", tenant="acme")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail(FROM, [bad], raw_message(1_000))
        code, words = refused.value.recipients[bad]
        assert code == 550 and words.startswith(b"5.1.1 ") and b"suppressed: hard bounce on " in words
    # it is acme's list, not everybody's
    with smtplib_session(relay, "implicit") as client:
        client.login(relay.globex.username, relay.globex.secret)
        assert client.mail("app@globex.example")[0] == 250
        assert client.rcpt(bad)[0] == 250
    entries = relay.command("suppression", "list", "acme")
    assert bad in json.dumps(entries)
    assert bad not in json.dumps(relay.command("suppression", "list", "globex"))


def test_the_programs_are_really_there():
    for program in ["curl", "swaks", "msmtp", "node"]:
        assert shutil.which(program), f"{program} is missing: tests/run installs it"
    assert pathlib.Path(HERE / "node_modules" / "nodemailer").exists()
