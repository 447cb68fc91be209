//! What happens in the demo, and the proof that it did.

mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{Client, Said};
use super::letter::{Letter, field_names, has_subject, parted};
use super::{Stage, strange};
use crate::admin::command::Selection;
use crate::admin::{Request, Response, perform};
use crate::cli::Failure;
use crate::cli::output::{self, Out};
use crate::sandbox::fault::{Fault, Kind};
use crate::sandbox::inbox::Message;

/// Recipients of one message; SES's own bound for a call.
const RECIPIENTS: usize = 50;
/// How often the suppression list is looked at while bounces are on their way.
const LOOK: Duration = Duration::from_millis(50);
/// How long bounces may be on their way.
const BOUNCES: Duration = Duration::from_secs(20);
/// How long held mail may take once SES is back.
const DRAIN: Duration = Duration::from_secs(20);
/// Messages that are sent while SES is away.
const HELD: usize = 5;

/// Header fields by name.
type Fields<'a> = &'a [(&'static str, &'a str)];

/// A sentence and whether it is true.
struct Claim {
    words: String,
    happened: bool,
}

/// What one tenant's stream was answered.
#[derive(Default)]
struct Tally {
    /// Recipients for whom the relay said 250.
    accepted: usize,
    /// Recipients and messages it refused, by why.
    refused: BTreeMap<String, usize>,
}

/// The story so far.
struct Story<'a> {
    stage: &'a Stage,
    out: Out,
    tallies: BTreeMap<(&'static str, &'static str), Tally>,
    claims: Vec<Claim>,
    /// Messages the relay took, body by subject.
    bodies: BTreeMap<String, Vec<u8>>,
    scene: usize,
}

/// The logins.
struct Cast {
    atlas: Client,
    atlas_news: Client,
    bargain: Client,
    bargain_news: Client,
    comet: Client,
    comet_news: Client,
}

/// Plays all scenes, proves them, and prints the table.
pub(super) async fn tell(stage: &Stage, size: usize, out: Out) -> Result<(), Failure> {
    let mut story =
        Story { stage, out, tallies: BTreeMap::new(), claims: Vec::new(), bodies: BTreeMap::new(), scene: 0 };
    story.say("Three tenants share one SES account through Bulkhead: atlas keeps its lists clean, bargain buys them, comet throws a stale one.");
    story.say("SES and its queue are a local sandbox here; the relay, TLS, AUTH and the AWS SDK are the real ones.");
    let mut cast = story.logins().await?;
    let list = bought_list(size);
    story.good_mail(&mut cast, size).await?;
    story.first_campaign(&mut cast, &list).await?;
    story.bounces_return(&list).await?;
    story.second_campaign(&mut cast, &list).await?;
    story.neighbours(&mut cast, &list).await?;
    let Cast { comet, comet_news, atlas, .. } = &mut cast;
    story.stale_list(stale::Cast { comet, comet_news, atlas }).await?;
    story.intrusions(&mut cast).await?;
    story.stowaways(&mut cast).await?;
    story.outage(&mut cast).await?;
    let waiting = story.waiting_of_comet().await?;
    let Cast { atlas, atlas_news, bargain, bargain_news, comet, comet_news } = cast;
    for client in [atlas, atlas_news, bargain, bargain_news, comet, comet_news] {
        client.quit().await;
    }
    story.prove_what_ses_got(waiting);
    story.end()
}

/// Addresses of which every tenth bounces and every fifteenth complains.
fn bought_list(size: usize) -> Vec<String> {
    (0..size)
        .map(|n| match (n % 10, n % 15) {
            (3, _) => format!("gone{n}@bounce.test"),
            (_, 7) => format!("angry{n}@complaint.test"),
            _ => format!("reader{n}@customers.example"),
        })
        .collect()
}

fn is_bad(address: &str) -> bool {
    address.ends_with("@bounce.test") || address.ends_with("@complaint.test")
}

impl Story<'_> {
    fn say(&self, words: impl AsRef<str>) {
        if self.out.json { self.out.note(words) } else { self.out.line(words) }
    }

    fn scene(&mut self, words: &str) {
        self.scene += 1;
        self.say(format!("\n{}. {words}", self.scene));
    }

    fn claim(&mut self, words: impl Into<String>, happened: bool) {
        self.claims.push(Claim { words: words.into(), happened });
    }

    fn answered(&mut self, who: (&'static str, &'static str), said: &Said, recipients: usize, why: &str) {
        let tally = self.tallies.entry(who).or_default();
        if said.is_yes() {
            tally.accepted += recipients;
        } else {
            *tally.refused.entry(why.to_owned()).or_default() += recipients;
        }
    }

    async fn logins(&mut self) -> Result<Cast, Failure> {
        let stage = self.stage;
        let login = async |tenant: &str, stream: Option<&str>, implicit: bool| {
            let who = stage.credential(tenant, stream).await?;
            let address = if implicit { stage.implicit } else { stage.submission };
            Client::connect(address, implicit, &stage.ca, &who).await
        };
        let cast = Cast {
            atlas: login("atlas", None, false).await?,
            atlas_news: login("atlas", Some("marketing"), true).await?,
            bargain: login("bargain", None, true).await?,
            bargain_news: login("bargain", Some("marketing"), false).await?,
            comet: login("comet", None, false).await?,
            comet_news: login("comet", Some("marketing"), true).await?,
        };
        self.say(format!(
            "Six clients are logged in, on {} (STARTTLS) and {} (implicit TLS).",
            stage.submission, stage.implicit
        ));
        Ok(cast)
    }

    /// One message to one recipient, counted and remembered.
    async fn send(
        &mut self,
        client: &mut Client,
        who: (&'static str, &'static str),
        to: &str,
        subject: &str,
    ) -> Result<Said, Failure> {
        let from = format!("hello@{}.example", who.0);
        let octets = Letter { from: &from, to, subject, fields: &[] }.octets()?;
        let said = client.send(&from, to, &octets).await?;
        self.answered(who, &said, 1, "refused");
        if said.is_yes() {
            self.bodies.insert(subject.to_owned(), parted(&octets).1.to_vec());
        }
        Ok(said)
    }

    async fn good_mail(&mut self, cast: &mut Cast, size: usize) -> Result<(), Failure> {
        self.scene("atlas sends password resets and a newsletter.");
        let (resets, readers) = ((size / 10).max(2), (size / 3).max(5));
        let mut all = true;
        for n in 0..resets {
            let said = self
                .send(
                    &mut cast.atlas,
                    ("atlas", "transactional"),
                    &format!("user{n}@customers.example"),
                    &format!("Reset {n} at atlas"),
                )
                .await?;
            all &= said.is_yes();
        }
        let list: Vec<String> = (0..readers).map(|n| format!("subscriber{n}@customers.example")).collect();
        let news = self.campaign(&mut cast.atlas_news, ("atlas", "marketing"), &list, "News of atlas").await?;
        all &= news.refused.is_empty() && news.all_taken;
        self.say(format!(
            "   {resets} resets and {readers} copies of the newsletter: 250, with SES's own message ids."
        ));
        self.claim("all of atlas's mail was accepted", all);
        Ok(())
    }

    async fn first_campaign(&mut self, cast: &mut Cast, list: &[String]) -> Result<(), Failure> {
        self.scene("bargain mails a list it bought.");
        let result = self.campaign(&mut cast.bargain_news, ("bargain", "marketing"), list, "Bargains one").await?;
        let bad = list.iter().filter(|address| is_bad(address)).count();
        self.say(format!(
            "   {} addresses, all accepted: nobody can know yet that {bad} of them are dead or will complain.",
            list.len()
        ));
        self.claim("bargain's first campaign was accepted in full", result.refused.is_empty() && result.all_taken);
        Ok(())
    }

    async fn bounces_return(&mut self, list: &[String]) -> Result<(), Failure> {
        self.scene("The bounces and complaints come back through SQS.");
        let expected: BTreeSet<&str> = list.iter().map(String::as_str).filter(|address| is_bad(address)).collect();
        let until = tokio::time::Instant::now() + BOUNCES;
        let mut suppressed = BTreeSet::new();
        while suppressed.len() < expected.len() && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            suppressed = self.suppressed("bargain").await?;
        }
        let bounced = suppressed.iter().filter(|address| address.ends_with("@bounce.test")).count();
        self.say(format!(
            "   bargain's suppression list: {bounced} hard bounces, {} complaints. atlas's list: {}.",
            suppressed.len() - bounced,
            self.suppressed("atlas").await?.len()
        ));
        let exactly = suppressed.iter().map(String::as_str).collect::<BTreeSet<_>>() == expected;
        self.claim("exactly the addresses that bounced or complained are on bargain's suppression list", exactly);
        let atlas = self.suppressed("atlas").await?;
        self.claim("atlas's suppression list is empty", atlas.is_empty());
        Ok(())
    }

    async fn suppressed(&self, tenant: &str) -> Result<BTreeSet<String>, Failure> {
        let (mut all, mut after) = (BTreeSet::new(), None);
        loop {
            let request = Request::SuppressionList { tenant: tenant.parse()?, after };
            let Response::Suppressions(page) = perform(&self.stage.desk, request, "demo").await? else {
                return Err(strange());
            };
            let Some(last) = page.last() else { return Ok(all) };
            after = Some((last.address.clone(), last.reason));
            all.extend(page.into_iter().map(|entry| entry.address));
        }
    }

    async fn second_campaign(&mut self, cast: &mut Cast, list: &[String]) -> Result<(), Failure> {
        self.scene("bargain mails the same list again.");
        let result = self.campaign(&mut cast.bargain_news, ("bargain", "marketing"), list, "Bargains two").await?;
        let expected: BTreeSet<&str> = list.iter().map(String::as_str).filter(|address| is_bad(address)).collect();
        let refused: BTreeSet<&str> = result.refused.iter().map(|(address, _)| address.as_str()).collect();
        for kind in ["@bounce.test", "@complaint.test"] {
            if let Some((address, said)) = result.refused.iter().find(|(address, _)| address.ends_with(kind)) {
                self.say(format!("   RCPT TO:<{address}>  {said}"));
            }
        }
        self.say(format!(
            "   {} refused at RCPT before SES saw them; the other {} went out.",
            refused.len(),
            list.len() - refused.len()
        ));
        let all_550 = result.refused.iter().all(|(_, said)| said.code == 550);
        self.claim(
            "bargain's second campaign met 550 at RCPT for exactly those addresses",
            refused == expected && all_550 && result.all_taken,
        );
        let got: BTreeSet<String> = self.with_subject("Bargains two").flat_map(|m| m.destination.clone()).collect();
        let rest: BTreeSet<String> = list.iter().filter(|address| !is_bad(address)).cloned().collect();
        self.claim("of the second campaign SES got the copies to the other addresses and no others", got == rest);
        let said = self
            .send(&mut cast.bargain, ("bargain", "transactional"), "user@customers.example", "Reset at bargain")
            .await?;
        self.say(format!("   bargain's password resets go on: {said}"));
        self.claim("bargain's transactional stream went on", said.is_yes());
        Ok(())
    }

    async fn neighbours(&mut self, cast: &mut Cast, list: &[String]) -> Result<(), Failure> {
        self.scene("atlas is asked for the same addresses (and sends them nothing).");
        let mut open = cast.atlas_news.mail("hello@atlas.example").await?.is_yes();
        let mut asked = 0;
        for address in list.iter().filter(|address| is_bad(address)).take(RECIPIENTS) {
            let said = cast.atlas_news.rcpt(address).await?;
            if asked == 0 {
                self.say(format!("   RCPT TO:<{address}>  {said}"));
            }
            open &= said.is_yes();
            asked += 1;
        }
        cast.atlas_news.reset().await?;
        self.say(format!("   {asked} of {asked} are open to atlas: bargain's list is bargain's alone."));
        self.claim("none of the addresses is suppressed for atlas", open && asked > 0);
        Ok(())
    }

    async fn intrusions(&mut self, cast: &mut Cast) -> Result<(), Failure> {
        self.scene("bargain tries to pass for atlas.");
        let before = self.stage.messages.received();
        let who = ("bargain", "transactional");
        let to = "victim@customers.example";
        let own = "hello@bargain.example";
        let theirs = "ceo@atlas.example";
        let attempts: [(&str, &str, &str, Fields<'_>); 5] = [
            ("MAIL FROM:<ceo@atlas.example>", theirs, own, &[]),
            ("From: ceo@atlas.example", own, theirs, &[]),
            ("Sender: ceo@atlas.example", own, own, &[("Sender", theirs)]),
            (
                "X-SES-CONFIGURATION-SET: atlas-transactional",
                own,
                own,
                &[("X-SES-CONFIGURATION-SET", "atlas-transactional")],
            ),
            ("X-Bulkhead-Stream: no-such-stream", own, own, &[("X-Bulkhead-Stream", "no-such-stream")]),
        ];
        for (what, envelope, from, fields) in attempts {
            let octets = Letter { from, to, subject: "Intrusion", fields }.octets()?;
            let said = cast.bargain.send(envelope, to, &octets).await?;
            self.say(format!("   {what}\n      {said}"));
            self.answered(who, &said, 1, "not its own");
            self.claim(format!("{what} was refused with 550"), said.code == 550);
        }
        let none = self.stage.messages.received() == before;
        self.claim("SES got none of these attempts", none);
        Ok(())
    }

    async fn stowaways(&mut self, cast: &mut Cast) -> Result<(), Failure> {
        self.scene("bargain writes to SES over Bulkhead's head.");
        let (own, to) = ("hello@bargain.example", "reader@customers.example");
        let fields = [
            ("Bcc", "hidden@customers.example"),
            ("X-SES-MESSAGE-TAGS", "tenant=atlas, campaign=spring"),
            ("x-ses-TENANT", "atlas"),
            ("X-SES-SOURCE-ARN", "arn:aws:ses:eu-west-1:000000000000:identity/atlas.example"),
        ];
        let octets = Letter { from: own, to, subject: "Stowaways", fields: &fields }.octets()?;
        let said = cast.bargain.send(own, to, &octets).await?;
        self.answered(("bargain", "transactional"), &said, 1, "refused");
        self.bodies.insert("Stowaways".into(), parted(&octets).1.to_vec());
        self.say(format!("   Bcc, a tag tenant=atlas, x-ses-TENANT, X-SES-SOURCE-ARN: {said}"));
        let arrived: Vec<_> = self.with_subject("Stowaways").collect();
        let own_tag = arrived.iter().all(|message| message.tag("tenant") == Some("bargain"));
        let kept = arrived.iter().all(|message| message.tag("campaign") == Some("spring"));
        let alone = arrived.len() == 1 && arrived.iter().all(|message| message.destination == [to]);
        let no_tenant = arrived.iter().all(|message| message.tenant_name.is_none());
        self.say(
            "   It arrives as bargain's, for its one recipient, without those fields; its own tag campaign is kept.",
        );
        self.claim(
            "a tag that claims to be atlas's left as bargain's, and bargain's own tag was kept",
            own_tag && kept,
        );
        self.claim("the hidden recipient and the foreign SES tenant got nowhere", alone && no_tenant);
        Ok(())
    }

    async fn outage(&mut self, cast: &mut Cast) -> Result<(), Failure> {
        self.scene("SES goes away, and comes back.");
        let (before, subject) = (self.stage.messages.received(), "While SES was away");
        self.stage.faults.script([Fault::lasting(Kind::Unavailable)]);
        let mut all_queued = true;
        for n in 0..HELD {
            let (own, to) = ("reset@atlas.example", format!("user{n}@customers.example"));
            let octets = Letter { from: own, to: &to, subject, fields: &[] }.octets()?;
            let said = cast.atlas.send(own, &to, &octets).await?;
            all_queued &= said.is_yes() && said.words.contains("queued as");
            self.answered(("atlas", "transactional"), &said, 1, "not held");
            self.bodies.insert(format!("{subject}/{to}"), parted(&octets).1.to_vec());
            if n == 0 {
                self.say(format!("   atlas's password resets meanwhile: {said}"));
            }
        }
        let held = self.held().await?;
        self.say(format!("   {held} messages are durable in the outbox; SES has none of them."));
        self.claim(
            "while SES was away atlas heard 250 for all of its mail, and all of it was held",
            all_queued && held == HELD && self.stage.messages.received() == before,
        );

        self.stage.faults.clear();
        let selection = Selection::Of { tenant: "atlas".parse()?, stream: None };
        let request = Request::OutboxRetry { selection, after: None, until: None };
        perform(&self.stage.desk, request, "demo").await?;
        let until = tokio::time::Instant::now() + DRAIN;
        while self.held().await? > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let mut arrived: Vec<_> = self.with_subject(subject).flat_map(|message| message.destination.clone()).collect();
        arrived.sort_unstable();
        self.say(format!("   SES is back: {} of {HELD} have reached it, each once.", arrived.len()));
        let expected: Vec<_> = (0..HELD).map(|n| format!("user{n}@customers.example")).collect();
        self.claim("when SES was back each of them reached it, once", arrived == expected);
        Ok(())
    }

    /// How many of atlas's messages are in the outbox.
    async fn held(&self) -> Result<usize, Failure> {
        let tenant = Some("atlas".parse()?);
        let request = Request::OutboxList { tenant, stream: None, cause: None, after: None };
        match perform(&self.stage.desk, request, "demo").await? {
            Response::Held(page) => Ok(page.rows.len()),
            _ => Err(strange()),
        }
    }

    /// A message for each group of up to [`RECIPIENTS`], as newsletters go out.
    async fn campaign(
        &mut self,
        client: &mut Client,
        who: (&'static str, &'static str),
        list: &[String],
        subject: &str,
    ) -> Result<Campaign, Failure> {
        let from = format!("news@{}.example", who.0);
        let mut result = Campaign { refused: Vec::new(), all_taken: true };
        for group in list.chunks(RECIPIENTS) {
            let octets = Letter { from: &from, to: "readers@customers.example", subject, fields: &[] }.octets()?;
            let opened = client.mail(&from).await?;
            if !opened.is_yes() {
                return Err(Failure::because(format!("MAIL FROM:<{from}> was refused: {opened}")));
            }
            let mut open = 0;
            for address in group {
                let said = client.rcpt(address).await?;
                if said.is_yes() {
                    open += 1;
                } else {
                    let why = if address.ends_with("@bounce.test") { "bounced before" } else { "complained before" };
                    self.answered(who, &said, 1, why);
                    result.refused.push((address.clone(), said));
                }
            }
            if open == 0 {
                client.reset().await?;
                continue;
            }
            let said = client.data(&octets).await?;
            result.all_taken &= said.is_yes();
            self.answered(who, &said, open, "refused");
            // Every group's message has parts of its own between its boundaries.
            self.bodies.insert(
                format!("{subject}/{}", group.first().cloned().unwrap_or_default()),
                parted(&octets).1.to_vec(),
            );
        }
        Ok(result)
    }

    fn with_subject(&self, subject: &str) -> impl Iterator<Item = std::sync::Arc<Message>> {
        self.stage.messages.all().into_iter().filter(move |message| has_subject(&message.raw, subject))
    }

    /// Each message SES got, against all that was promised of every message. `waiting`: recipients of
    /// comet's marketing who wait in the outbox.
    fn prove_what_ses_got(&mut self, waiting: usize) {
        let mut got = self.stage.messages.all();
        // The relay's own mail has no tenant's set.
        got.retain(|message| message.configuration_set.as_deref() != Some(super::NOTICES));
        let isolated = got.iter().all(|message| {
            let (Some(tenant), Some(stream)) = (message.tag("tenant"), message.tag("stream")) else { return false };
            message.configuration_set.as_deref() == Some(&format!("{tenant}-{stream}"))
        });
        self.claim(
            "every message reached SES with its own tenant's configuration set and tags",
            isolated && !got.is_empty(),
        );
        let clean = got.iter().all(|message| {
            !field_names(&message.raw)
                .iter()
                .any(|name| name == "bcc" || name.starts_with("x-ses-") || name.starts_with("x-bulkhead-"))
        });
        self.claim("no Bcc, X-SES or X-Bulkhead field reached SES", clean);
        let sent: BTreeSet<&[u8]> = self.bodies.values().map(Vec::as_slice).collect();
        let same = got.iter().all(|message| sent.contains(parted(&message.raw).1));
        self.claim("every body reached SES octet by octet as it was sent", same);
        let mut counts = self.by_stream(&got);
        *counts.entry(("comet".into(), "marketing".into())).or_default() += waiting;
        let accepted: BTreeMap<(&str, &str), usize> =
            self.tallies.iter().map(|(who, tally)| (*who, tally.accepted)).collect();
        let equal = counts.iter().map(|(who, n)| ((who.0.as_str(), who.1.as_str()), *n)).collect::<BTreeMap<_, _>>();
        self.claim(
            "SES got exactly what was answered with 250, but for what waits of comet's paused stream",
            equal == accepted,
        );
    }

    /// Recipients by tenant and stream.
    fn by_stream(&self, got: &[std::sync::Arc<Message>]) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for message in got {
            let tag = |name| message.tag(name).unwrap_or("?").to_owned();
            *counts.entry((tag("tenant"), tag("stream"))).or_default() += message.destination.len();
        }
        counts
    }

    /// The table, the proof, and the verdict.
    fn end(self) -> Result<(), Failure> {
        let counts = self.by_stream(&self.stage.messages.all());
        let rows: Vec<Vec<String>> = self
            .tallies
            .iter()
            .map(|((tenant, stream), tally)| {
                let refused: usize = tally.refused.values().sum();
                let why: Vec<String> = tally.refused.iter().map(|(why, n)| format!("{n} {why}")).collect();
                let got = counts.get(&((*tenant).to_owned(), (*stream).to_owned())).copied().unwrap_or_default();
                vec![
                    (*tenant).into(),
                    (*stream).into(),
                    (tally.accepted + refused).to_string(),
                    got.to_string(),
                    refused.to_string(),
                    output::or_dash(why.join(", ")),
                ]
            })
            .collect();
        let failed = self.claims.iter().filter(|claim| !claim.happened).count();
        if self.out.json {
            let claims: Vec<_> = self
                .claims
                .iter()
                .map(|claim| serde_json::json!({"claim": claim.words, "happened": claim.happened}))
                .collect();
            self.out.json(&serde_json::json!({"ok": failed == 0, "streams": rows, "claims": claims}))?;
        } else {
            self.out.line("\nRecipients by tenant and stream:\n");
            self.out.table(&["TENANT", "STREAM", "GIVEN", "SES GOT", "REFUSED", "WHY"], &rows);
            self.out.line("\nChecked against what the sandbox was sent:\n");
            for claim in &self.claims {
                self.out.line(format!("  {}  {}", if claim.happened { "yes" } else { "NO " }, claim.words));
            }
        }
        if failed > 0 {
            return Err(Failure::because(format!("{failed} of {} claims did not happen", self.claims.len())));
        }
        self.say("\nAll of it happened.");
        Ok(())
    }
}

/// What became of a campaign.
struct Campaign {
    /// Addresses that were refused at RCPT, with the reply.
    refused: Vec<(String, Said)>,
    /// Whether every message was taken for the others.
    all_taken: bool,
}
