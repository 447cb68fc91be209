//! What holds when the process dies, is told to end, loses its disk or meets itself: the program
//! itself, killed and signalled, with the sandbox's SES and queue behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "support/binary.rs"]
mod binary;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binary::{Aws, Caller, Dice, Place, Process, SECRET, SENDER, USERNAME, code, exists, get, message, soon};
use bulkhead::adapters::clock::MachineClock;
use bulkhead::policy::reputation::Step;
use bulkhead::sandbox::fault::{Fault, Kind};
use bulkhead::time::Clock as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Rounds of events with a kill in each.
const EVENT_ROUNDS: u32 = 30;
/// Rounds of mail with a kill in each.
const MAIL_ROUNDS: u32 = 10;

// ---------------------------------------------------------------------------------------------
// Events

/// An event about mail of the tenant's that was sent just now.
fn event(kind: &str, message_id: &str, recipient: &str) -> Value {
    let now = MachineClock.now().rfc3339();
    let (name, details) = match kind {
        "Bounce" => (
            "bounce",
            json!({
                "bounceType": "Permanent", "bounceSubType": "General", "timestamp": now,
                "feedbackId": format!("feedback-{message_id}"),
                "bouncedRecipients": [{"emailAddress": recipient, "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 nobody"}],
            }),
        ),
        "Complaint" => (
            "complaint",
            json!({
                "complainedRecipients": [{"emailAddress": recipient}], "timestamp": now,
                "feedbackId": format!("feedback-{message_id}"), "complaintFeedbackType": "abuse",
            }),
        ),
        "Delivery" => ("delivery", json!({"timestamp": now, "recipients": [recipient], "smtpResponse": "250 ok"})),
        "Send" => ("send", json!({})),
        _ => panic!("{kind}"),
    };
    json!({
        "eventType": kind,
        name: details,
        "mail": {
            "timestamp": now, "messageId": message_id, "source": SENDER, "destination": [recipient],
            "tags": {"tenant": ["acme"], "stream": ["main"], "ses:configuration-set": ["acme-main"]},
        },
    })
}

fn raw(event: &Value) -> String {
    event.to_string()
}

fn sns(event: &Value) -> String {
    json!({
        "Type": "Notification", "MessageId": "n", "TopicArn": "arn:aws:sns:eu-west-1:000000000000:events",
        "Message": event.to_string(), "Timestamp": "2026-11-20T09:15:04.120Z",
    })
    .to_string()
}

/// How many events ended so in this run of the process.
async fn applied(place: &Place, outcome: &str) -> u64 {
    let status = place.ask(&["status"]).await;
    let (_, metrics) = get(status["admin"].as_str().unwrap(), "/metrics").await;
    let lines = metrics.lines().filter(|line| line.starts_with("bulkhead_events_total{"));
    lines
        .filter(|line| line.contains(outcome))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_counts_once_across_a_kill_between_apply_and_delete() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let bounce = event("Bounce", "m-1", "gone@dest.example");

    aws.gate.hold_deletes.store(true, Ordering::SeqCst);
    let mut relay = place.start().await;
    aws.queue.put(sns(&bounce));
    aws.gate.until("the delete", |gate| gate.deletes_held.load(Ordering::SeqCst) == 1).await;
    relay.kill();
    // The delete was asked for and never happened, so the effects were durable before it.
    assert_eq!(aws.queue.len(), 1);
    assert_eq!(place.counts().await, json!({"bounced": 1}));

    aws.gate.hold_deletes.store(false, Ordering::SeqCst);
    let relay = place.start().await;
    aws.gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    assert_eq!((applied(&place, "applied").await, applied(&place, "repeated").await), (0, 1), "{}", relay.transcript());
    assert_eq!(place.counts().await, json!({"bounced": 1}));
    assert_eq!(place.suppressed().await, ["gone@dest.example"]);

    // Again, twice at once and in another form.
    for body in [raw(&bounce), sns(&bounce), raw(&bounce)] {
        aws.queue.put(body);
    }
    aws.gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    assert_eq!(applied(&place, "repeated").await, 4);
    assert_eq!(place.counts().await, json!({"bounced": 1}));
    assert_eq!(place.suppressed().await, ["gone@dest.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_count_once_out_of_order_and_before_their_send() {
    let aws = Aws::start().await;
    let place = &aws.place("");
    let relay = place.start().await;

    // SES takes the message, and its answer is lost: it is held, and nothing is recorded of a send when
    // the bounce comes in.
    aws.faults.script([Fault::once(Kind::ResetAfter)]);
    let mut client = Caller::login(relay.listener("starttls").await, HERE, &place.tls()).await.unwrap();
    let reply = client.send("first@bounce.test", "unrecorded").await.unwrap();
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    let queued = relay.line("message_queued", |line| line["cause"] == "unknown").await;
    let bounced = |many: u64| async move {
        soon("the bounce", async { while place.counts().await["bounced"] != many {} }).await;
    };
    bounced(1).await;
    assert_eq!(place.counts().await, json!({"bounced": 1}));
    // The client's next message is refused, for the reason that the list has.
    let refused = client.begin("first@bounce.test").await.unwrap_err().to_string();
    assert!(refused.starts_with("550 5.1.1 "), "{refused}");
    let mut client = Caller::login(relay.listener("starttls").await, HERE, &place.tls()).await.unwrap();
    // This one's bounce is in the queue before SES has answered, and its record is written within a
    // second after that. It goes by at once: what is held waits for its time, not for its turn.
    let reply = client.send("second@bounce.test", "early").await.unwrap();
    assert!(reply.starts_with("250 2.0.0 Ok "), "{reply}");
    bounced(2).await;

    // A complaint and a bounce before their deliveries and sends, each once more at the end.
    let events = ["Complaint", "Bounce", "Delivery", "Send"].map(|kind| event(kind, "m-2", "third@dest.example"));
    for event in events.iter().chain(&events) {
        aws.queue.put(sns(event));
        aws.gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    }
    // Accepted recipients are written every second.
    let counts = soon("the record of the send", async {
        while place.counts().await["accepted"] != 1 {}
        place.counts().await
    });
    let once = json!({"accepted": 1, "delivered": 1, "bounced": 3, "complained": 1});
    assert_eq!(counts.await, once, "{}", relay.transcript());
    assert_eq!(BTreeSet::from_iter(place.suppressed().await).len(), 3);
    assert_eq!((aws.messages.received(), relay.lines("message_dispatched").len()), (2, 0), "{queued}");
}

/// The event of a message whose answer was lost tells what becomes of it: who is suppressed by then
/// does not get it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_bounced_before_it_was_tried_again_is_not_sent_again() {
    let aws = Aws::start().await;
    let place = &aws.place("[outbox]\nunknown_wait_seconds = 3\n");
    let relay = place.start().await;
    let mut client = Caller::login(relay.listener("starttls").await, HERE, &place.tls()).await.unwrap();
    aws.faults.script([Fault::once(Kind::ResetAfter)]);
    let reply = client.send("first@bounce.test", "unrecorded").await.unwrap();
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    let end = relay.line("message_dispatched", |_| true).await;
    assert_eq!((&end["sent"], &end["refused"], &end["unknown"]), (&0.into(), &1.into(), &1.into()), "{end}");
    let refused = relay.line("recipient_refused", |_| true).await;
    assert_eq!(refused["reason"], "recipient_suppressed", "{refused}");
    assert_eq!(aws.messages.received(), 1);
}

/// Kills at the answer to a receive, at a delete, and at any moment between.
#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_killed_every_event_counts_once() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let dice = Dice::new(0x5eed_0001);
    let gate = &aws.gate;
    let began = Instant::now();
    let mut injected: BTreeMap<&str, u64> = BTreeMap::new();
    let mut suppressed = BTreeSet::new();
    let (mut before_apply, mut before_delete, mut elsewhere) = (0, 0, 0);
    for round in 0..EVENT_ROUNDS {
        let mut bodies = Vec::new();
        for n in 0..8 {
            let kind = ["Bounce", "Complaint", "Delivery"][usize::try_from(dice.below(3)).unwrap()];
            let recipient = format!("r{round}-{n}@dest.example");
            let event = event(kind, &format!("m-{round}-{n}"), &recipient);
            *injected.entry(kind).or_default() += 1;
            if kind != "Delivery" {
                suppressed.insert(recipient);
            }
            for _ in 0..1 + dice.below(2) {
                bodies.push(if dice.below(2) == 0 { raw(&event) } else { sns(&event) });
            }
        }
        dice.shuffle(&mut bodies);

        let how = round % 3;
        gate.hold_receives.store(how == 0, Ordering::SeqCst);
        gate.hold_deletes.store(how == 2, Ordering::SeqCst);
        let held = (gate.receives_held.load(Ordering::SeqCst), gate.deletes_held.load(Ordering::SeqCst));
        // Before the first start there is no store.
        let known = if round == 0 { 0 } else { total(&place.counts().await) };
        let mut relay = place.start().await;
        let given = gate.given.load(Ordering::SeqCst);
        for body in bodies {
            aws.queue.put(body);
        }
        match how {
            0 => gate.until("a receive", |gate| gate.receives_held.load(Ordering::SeqCst) > held.0).await,
            1 => {
                gate.until("a receive", |gate| gate.given.load(Ordering::SeqCst) > given).await;
                // Any moment: what it falls into is found out afterwards.
                tokio::time::sleep(Duration::from_micros(u64::from(dice.below(12_000)))).await;
            }
            _ => gate.until("a delete", |gate| gate.deletes_held.load(Ordering::SeqCst) > held.1).await,
        }
        relay.kill();
        let fresh = total(&place.counts().await) - known;
        match (how, fresh) {
            (0, fresh) => {
                assert_eq!(fresh, 0, "something counted that was never received");
                before_apply += 1;
            }
            (1, 0) => before_apply += 1,
            (1, _) => elsewhere += 1,
            (_, _) => before_delete += 1,
        }
    }
    gate.hold_receives.store(false, Ordering::SeqCst);
    gate.hold_deletes.store(false, Ordering::SeqCst);
    let mut relay = place.start().await;
    gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    relay.signal("TERM");
    assert_eq!(relay.ended().await.0.code(), Some(0));

    let counts = place.counts().await;
    println!(
        "{EVENT_ROUNDS} kills: {before_apply} before apply, {before_delete} between apply and delete, {elsewhere} elsewhere; \
         {injected:?} counted as {counts} in {:?}",
        began.elapsed()
    );
    assert!(before_apply > 0 && before_delete > 0);
    let expected = json!({
        "bounced": injected["Bounce"], "complained": injected["Complaint"], "delivered": injected["Delivery"],
    });
    assert_eq!(counts, expected);
    let listed = place.suppressed().await;
    assert_eq!(listed.len(), suppressed.len());
    assert_eq!(BTreeSet::from_iter(listed), suppressed);
}

/// How far the stream's mail is restrained, as the commands show it: the words of [`Step`] in order.
async fn standing(place: &Place) -> (usize, Value) {
    let shown = place.ask(&["tenant", "show", "acme"]).await;
    let standing = shown["streams"][0]["standing"].clone();
    let step = standing["step"].as_str().unwrap();
    (Step::ALL.iter().position(|known| known.word() == step).unwrap(), standing)
}

/// Bounces come, the process is killed at any moment, and comes up again: what the standing was it still
/// is, or further; in the end it is what the bounces make it, and a kill changes nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_standing_outlives_every_kill() {
    const ROUNDS: u32 = 12;
    let aws = Aws::start().await;
    let place = aws.place("");
    let dice = Dice::new(0x5eed_0002);
    let (mut seen, mut before) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        let mut relay = place.start().await;
        let (step, standing_now) = standing(&place).await;
        assert!(step >= before, "a restart made it better: {standing_now}");
        let given = aws.gate.given.load(Ordering::SeqCst);
        aws.queue.put(raw(&event("Bounce", &format!("s-{round}"), &format!("s{round}@dest.example"))));
        aws.gate.until("a receive", |gate| gate.given.load(Ordering::SeqCst) > given).await;
        // Any moment around the commits of the event and of the standing.
        tokio::time::sleep(Duration::from_micros(u64::from(dice.below(150_000)))).await;
        relay.kill();
        before = standing(&place).await.0;
        seen.insert(before);
    }
    let mut relay = place.start().await;
    aws.gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    let paused = async {
        while standing(&place).await.1["step"] != "paused" {
            tokio::task::yield_now().await;
        }
    };
    soon("the pause", paused).await;
    let (_, told) = standing(&place).await;
    relay.kill();
    println!("{ROUNDS} kills while bounces came: steps {seen:?} of {:?} were on the disk at a kill", Step::ALL);
    assert!(seen.len() > 1, "all kills fell into one step");
    let relay = place.start().await;
    assert_eq!(standing(&place).await.1, told, "since when, why and until when are as they were");
    let mut caller = Caller::login(relay.listener("starttls").await, HERE, &place.tls()).await.unwrap();
    let heard = caller.say(&format!("MAIL FROM:<{SENDER}>")).await.unwrap();
    assert!(heard.starts_with("451 4.7.1 stream main paused since") && heard.contains("bounce rate"), "{heard}");
}

fn total(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

// ---------------------------------------------------------------------------------------------
// Mail

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_250_is_at_ses_whenever_it_is_killed() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let dice = Dice::new(0x5eed_0002);
    let tls = place.tls();
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut cut = 0;
    for round in 0..MAIL_ROUNDS {
        let mut relay = place.start().await;
        let address = relay.listener("starttls").await;
        let wanted = 10 + dice.below(40);
        let enough = Arc::new(Semaphore::new(0));
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (answered, tls, enough) = (Arc::clone(&answered), Arc::clone(&tls), Arc::clone(&enough));
                tokio::spawn(async move {
                    // The credential is there after each kill.
                    let mut caller = Caller::login(address, HERE, &tls).await.unwrap();
                    for number in 0.. {
                        let subject = format!("s{round}-{client}-{number}");
                        match caller.send("someone@dest.example", &subject).await {
                            Ok(reply) => {
                                assert_eq!(code(&reply), 250, "{reply}");
                                answered.lock().unwrap().push(subject);
                                enough.add_permits(1);
                            }
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        soon("some messages", enough.acquire_many(wanted)).await.unwrap().forget();
        tokio::time::sleep(Duration::from_micros(u64::from(dice.below(5000)))).await;
        relay.kill();
        for client in clients {
            soon("a client's end", client).await.unwrap();
            cut += 1;
        }
    }
    let taken: Vec<String> = aws.messages.all().iter().map(|message| subject(&message.raw)).collect();
    let answered = answered.lock().unwrap().clone();
    println!("{MAIL_ROUNDS} kills: {} messages answered 250, {} at SES", answered.len(), taken.len());
    assert_eq!(cut, MAIL_ROUNDS * 6);
    assert!(answered.len() >= 60);
    let set: BTreeSet<&String> = taken.iter().collect();
    for subject in &answered {
        assert!(set.contains(subject), "{subject} was answered 250 and is not at SES");
    }
    // A message may be there without its 250, one a client and kill at most.
    assert!(taken.len() - answered.len() <= usize::try_from(cut).unwrap());
    let suppressed = place.suppressed().await;
    assert!(suppressed.is_empty(), "{suppressed:?}");
}

fn subject(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned()
}

// ---------------------------------------------------------------------------------------------
// Signals

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_idle_clients_hear_421_and_a_message_under_way_its_250() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let mut relay = place.start().await;
    let address = relay.listener("starttls").await;
    let tls = place.tls();
    let mut idle = Caller::login(address, HERE, &tls).await.unwrap();
    let mut unnamed = Caller::plain(address, HERE).await.unwrap();
    let mut busy = Caller::login(address, HERE, &tls).await.unwrap();
    aws.faults.script([Fault { delay_ms: 1500, ..Fault::once(Kind::Slow) }]);
    busy.begin("someone@dest.example").await.unwrap();
    busy.write(message("someone@dest.example", "last").as_bytes()).await.unwrap();
    soon("the call", async {
        while !aws.faults.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let began = Instant::now();
    relay.signal("TERM");
    for client in [&mut idle, &mut unnamed] {
        let reply = client.reply().await.unwrap();
        assert!(reply.starts_with("421 4.3.2 "), "{reply}");
        assert!(client.closed().await);
    }
    relay.line("drain_started", |_| true).await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(code(&busy.reply().await.unwrap()), 250);
    assert!(busy.reply().await.unwrap().starts_with("421 4.3.2 "));
    let (status, _) = relay.ended().await;
    println!("drained in {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(aws.messages.received(), 1);
    assert_eq!(relay.lines("relay_stopped")[0]["abandoned_sessions"], 0);
    // The last message was counted.
    assert_eq!(place.counts().await["accepted"], 1);
}

/// What SES has not answered by the end of the drain is on the disk with its lease, and is sent by
/// the next process; so is what never was offered.
#[tokio::test(flavor = "multi_thread")]
async fn what_sigterm_leaves_in_the_outbox_is_sent_after_the_restart() {
    let aws = Aws::start().await;
    let place = aws.place("[limits]\ndrain_seconds = 2\n[outbox]\nunknown_wait_seconds = 0\n");
    let mut relay = place.start().await;
    let address = relay.listener("starttls").await;
    let tls = place.tls();
    let mut busy = Caller::login(address, HERE, &tls).await.unwrap();
    let mut other = Caller::login(address, HERE, &tls).await.unwrap();
    aws.faults.script([Fault::once(Kind::Quota).to("later@dest.example"), Fault::once(Kind::Hang)]);
    busy.begin("someone@dest.example").await.unwrap();
    busy.write(message("someone@dest.example", "hanging").as_bytes()).await.unwrap();
    soon("the call", async {
        while aws.faults.waiting().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The quota is used up for ten minutes.
    let reply = other.send("later@dest.example", "waiting").await.unwrap();
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    // A connection that its client does not close is listened to for as long as the drain.
    drop(other);

    let began = Instant::now();
    relay.signal("TERM");
    let reply = busy.reply().await.unwrap();
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    assert!(busy.reply().await.unwrap().starts_with("421 4.3.2 "));
    drop(busy);
    let (status, said) = relay.ended().await;
    println!("drained in {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!((aws.messages.received(), &relay.lines("relay_stopped")[0]["abandoned_sessions"]), (0, &0.into()));
    let causes: Vec<String> =
        relay.lines("message_queued").iter().map(|line| line["cause"].as_str().unwrap().to_owned()).collect();
    assert_eq!(causes, ["daily_quota", "drain"]);

    let relay = place.start().await;
    let opened = relay.line("outbox_opened", |_| true).await;
    assert_eq!((&opened["held"], &opened["unknown"]), (&2.into(), &1.into()), "{opened}");
    relay.line("outcome_unknown", |_| true).await;
    let both = async {
        while relay.lines("message_dispatched").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("the held messages' ends", both).await;
    let ends: Vec<(Value, Value)> =
        relay.lines("message_dispatched").iter().map(|line| (line["sent"].clone(), line["unknown"].clone())).collect();
    assert!(ends.iter().all(|(sent, _)| *sent == 1), "{ends:?}");
    let mut subjects: Vec<String> = aws.messages.all().iter().map(|message| subject(&message.raw)).collect();
    subjects.sort();
    assert_eq!(subjects, ["hanging", "waiting"], "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sighup_tenants_and_certificate_are_read_anew() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let relay = place.start().await;
    let address = relay.listener("starttls").await;
    let tls = place.tls();
    let mut open = Caller::login(address, HERE, &tls).await.unwrap();

    let mut early = Caller::starttls(address, HERE, &tls).await.unwrap();
    assert_eq!(code(&early.auth("acme-second", "bh_second").await.unwrap()), 535);
    place.write("tenants.toml", &binary::tenants(&[(USERNAME, SECRET), ("acme-second", "bh_second")]));
    relay.signal("HUP");
    relay.line("tenants_applied", |line| line["changes"] == 1).await;
    assert_eq!(code(&early.auth("acme-second", "bh_second").await.unwrap()), 235);

    // A file that is broken is told of, and what was there stays.
    place.write("tenants.toml", &binary::tenants(&[]).replace("kind = \"bulk\"", "kind = \"spam\""));
    relay.signal("HUP");
    let line = relay.line("tenants_refused", |_| true).await;
    assert!(line["reason"].as_str().unwrap().contains("spam"), "{line}");
    for (username, secret) in [("acme-second", "bh_second"), (USERNAME, SECRET)] {
        let mut client = Caller::starttls(address, HERE, &tls).await.unwrap();
        assert_eq!(code(&client.auth(username, secret).await.unwrap()), 235, "{username}");
    }

    // So is a certificate.
    place.write("relay.pem", "no certificate");
    relay.signal("HUP");
    relay.line("certificate_refused", |_| true).await;
    Caller::login(address, HERE, &tls).await.unwrap();

    let loaded = relay.lines("certificate_loaded").len();
    let (ca, certificate, key) = binary::certificate();
    place.write_certificate(&certificate, &key);
    relay.signal("HUP");
    relay.line("tenants_refused", |_| relay.lines("certificate_loaded").len() > loaded).await;
    let new = bulkhead::adapters::tls::client_trusting(&ca).unwrap();
    Caller::login(address, HERE, &new).await.unwrap();
    assert!(Caller::starttls(address, HERE, &tls).await.is_err(), "the old certificate is still served");
    let sent = open.send("someone@dest.example", "over the old certificate").await.unwrap();
    assert_eq!(code(&sent), 250, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sighup_limits_are_read_anew_for_the_next_connection() {
    let aws = Aws::start().await;
    let place = aws.place("[limits]\nrecipients = 3\nmessage_bytes = 2000000\n");
    let relay = place.start().await;
    let address = relay.listener("starttls").await;
    let tls = place.tls();
    let ehlo = async |client: &mut Caller| client.say("EHLO again.example").await.unwrap();
    let has = |reply: &str, recipients: usize, bytes: usize| {
        let (limit, size) = (format!("RCPTMAX={recipients} "), format!("SIZE {bytes}\r\n"));
        assert!(reply.replace("\r\n", " \r\n").contains(&limit), "{limit}: {reply}");
        assert!(reply.contains(&size), "{size}: {reply}");
    };
    let mut open = Caller::login(address, HERE, &tls).await.unwrap();
    has(&ehlo(&mut open).await, 3, 2_000_000);

    let before = std::fs::read_to_string(place.path("bulkhead.toml")).unwrap();
    let after = before.replace("recipients = 3", "recipients = 2").replace("= 2000000", "= 1000000");
    place.write("bulkhead.toml", &after);
    relay.signal("HUP");
    let line = relay.line("settings_applied", |_| true).await;
    assert_eq!((&line["changes"], &line["level"]), (&2.into(), &"info".into()), "{line}");
    has(&ehlo(&mut open).await, 3, 2_000_000);
    let mut next = Caller::login(address, HERE, &tls).await.unwrap();
    has(&ehlo(&mut next).await, 2, 1_000_000);

    // A broken file changes nothing and says all that is wrong.
    place.write("bulkhead.toml", &after.replace("recipients = 2", "recipients = 0\nrecipient = 1"));
    relay.signal("HUP");
    let line = relay.line("settings_refused", |_| true).await;
    let problems: Vec<&str> = line["problems"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(problems.len(), 2, "{line}");
    for (problem, key) in problems.iter().zip(["limits.recipients: is 0", "limits.recipient: "]) {
        assert!(problem.contains(key), "{problem}");
    }
    let mut still = Caller::login(address, HERE, &tls).await.unwrap();
    has(&ehlo(&mut still).await, 2, 1_000_000);

    // What is no limit is told of and not followed; neither is the name.
    let renamed = after.replace("hostname = \"", "hostname = \"x.").replace("eu-west-1", "eu-west-2");
    place.write("bulkhead.toml", &renamed.replace("recipients = 2", "recipients = 4"));
    relay.signal("HUP");
    let line = relay.line("settings_applied", |line| line["level"] == "warn").await;
    assert_eq!(line["restart"], serde_json::json!(["hostname", "aws.region"]), "{line}");
    let mut last = Caller::login(address, HERE, &tls).await.unwrap();
    let reply = ehlo(&mut last).await;
    has(&reply, 4, 1_000_000);
    assert!(!reply.contains("x."), "{reply}");
}

// ---------------------------------------------------------------------------------------------
// Starts that are refused

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let relay = place.start().await;
    let mut second = Process::spawn(place.program(&["serve"]));
    let (status, said) = second.ended().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another process"), "{said}");
    assert!(second.lines("listener_opened").is_empty());
    // The first one did not notice.
    let mut client = Caller::login(relay.listener("starttls").await, HERE, &place.tls()).await.unwrap();
    assert_eq!(code(&client.send("someone@dest.example", "still").await.unwrap()), 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_ends_with_78_before_anything_is_bound() {
    // Whoever binds this address first fails with another code.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new("http://127.0.0.1:9", None, "");
    let settings = std::fs::read_to_string(place.path("bulkhead.toml")).unwrap();
    let settings = settings.replacen("127.0.0.1:0", &address.to_string(), 1);
    let (good, bad) = (binary::tenants(&[]), binary::tenants(&[]).replace("kind = \"bulk\"", "kind = \"spam\""));
    let pem = std::fs::read_to_string(place.path("relay.pem")).unwrap();
    for (settings, tenants, certificate, code, word) in [
        (settings.replace("hostname", "hostnam"), &good, pem.as_str(), 78, "hostnam"),
        (settings.replace("[aws]", "[limits]\nrecipients = 0\n[aws]"), &good, &pem, 78, "limits.recipients"),
        ("what is this".into(), &good, &pem, 78, "bulkhead.toml"),
        (settings.clone(), &bad, &pem, 78, "spam"),
        (settings.clone(), &good, "no certificate", 78, "relay.pem"),
        // With all of it in order the address is the only thing wrong.
        (settings, &good, &pem, 1, "cannot be bound"),
    ] {
        place.write("bulkhead.toml", &settings);
        place.write("tenants.toml", tenants);
        place.write("relay.pem", certificate);
        let output = place.run(&["serve"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{word}: {said}");
        assert!(said.contains(word), "{word}: {said}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("listener_opened"));
    }
    assert!(exists(&place.path("data")), "the last one opened its store");
}

// ---------------------------------------------------------------------------------------------
// The disk

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_defers_and_drains_and_refuses_nobody() {
    let aws = Aws::start().await;
    let place = aws.place("");
    let mut relay = place.start_limited().await;
    let address = relay.listener("starttls").await;
    let tls = place.tls();
    let admin = place.ask(&["status"]).await["admin"].as_str().unwrap().to_owned();
    assert_eq!(get(&admin, "/readyz").await.0, 200);

    // A message is at SES while the disk fails, and holds the drain open; others are in the middle.
    let mut busy = Caller::login(address, HERE, &tls).await.unwrap();
    let mut sending = Caller::login(address, HERE, &tls).await.unwrap();
    let mut idle = Caller::login(address, HERE, &tls).await.unwrap();
    aws.faults.script([Fault { delay_ms: 4000, ..Fault::once(Kind::Slow) }]);
    busy.begin("someone@dest.example").await.unwrap();
    busy.write(message("someone@dest.example", "busy").as_bytes()).await.unwrap();
    assert_eq!(code(&sending.say(&format!("MAIL FROM:<{SENDER}>")).await.unwrap()), 250);

    let pid = i32::try_from(relay.pid).unwrap();
    rlimit::prlimit(pid, rlimit::Resource::FSIZE, Some((0, rlimit::INFINITY)), None).unwrap();
    aws.queue.put(sns(&event("Bounce", "m-1", "gone@dest.example")));
    let line = relay.line("store_failed", |_| true).await;
    println!("{line}");

    let (status, body) = get(&admin, "/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("store"), "{body}");
    let mut heard = Vec::new();
    heard.push(sending.say("RCPT TO:<someone@dest.example>").await.unwrap());
    heard.push(idle.reply().await.unwrap());
    heard.push(busy.reply().await.unwrap());
    println!("{heard:#?}");
    for reply in &heard[..2] {
        assert_eq!(code(reply) / 100, 4, "{reply}");
    }
    // SES has the message: its client must not send it again.
    assert_eq!(code(&heard[2]), 250);
    // Its transaction would be waited for as long as limits.drain_seconds.
    drop(sending);
    let began = Instant::now();
    let (status, said) = relay.ended().await;
    println!("ended {:?} after the last reply", began.elapsed());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("store"), "{said}");
    // The bounce is still there, beside what SES tells of the last message.
    assert_eq!(aws.queue.len(), 3);

    // A new process has the disk back; the queue brings the bounce again.
    let _relay = place.start().await;
    aws.gate.until("an empty queue", |_| aws.queue.is_empty()).await;
    assert_eq!(place.counts().await["bounced"], 1);
    assert_eq!(place.suppressed().await, ["gone@dest.example"]);
}
