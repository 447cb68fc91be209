//! The scene that Bulkhead is for: a new tenant throws a stale list, and is warned, slowed and paused,
//! alone.
//!
//! Promises: each step is waited for and seen in what the gate itself reads; what SES got is counted at
//! the sandbox. The waves are so large that each of them goes over the next limit and no further
//! (manual: `reputation`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{LOOK, Story};
use crate::admin::{Request, Response, perform};
use crate::cli::Failure;
use crate::cli::demo::client::Client;
use crate::cli::demo::letter::{Letter, parted};
use crate::cli::demo::strange;
use crate::mail::{StreamId, TenantId};
use crate::policy::reputation::{Brake, Step, percent};

/// Who throws it, by which stream.
const WHO: (&str, &str) = ("comet", "marketing");
/// Who looks after comet's mail.
pub(in crate::cli::demo) const CONTACT: &str = "ops@comet.example";
/// Recipients of a wave, how many of them are dead, and what it leads to.
const WAVES: [(usize, usize, Step); 3] = [(100, 5, Step::Warned), (10, 3, Step::Slowed), (60, 9, Step::Paused)];
/// The rest of the list, of which one in eight is dead.
const REST: usize = 1000;
/// Recipients of a message.
const GROUP: usize = 10;
/// How long a step, or a mail about it, may take.
const STEP: Duration = Duration::from_secs(20);
/// What comet's contact is told: each step of the stream, and that the tenant is left with its
/// transactional mail.
const MAILS: usize = 4;

/// The clients of the scene.
pub(super) struct Cast<'a> {
    pub(super) comet: &'a mut Client,
    pub(super) comet_news: &'a mut Client,
    pub(super) atlas: &'a mut Client,
}

impl Story<'_> {
    pub(super) async fn stale_list(&mut self, cast: Cast<'_>) -> Result<(), Failure> {
        let Cast { comet, comet_news, atlas } = cast;
        let thrown = WAVES.iter().map(|(size, ..)| size).sum::<usize>() + REST;
        let dead = WAVES.iter().map(|(_, dead, _)| dead).sum::<usize>() + REST / 8;
        self.scene(&format!("comet, a new tenant, throws a stale list: {dead} of {thrown} addresses are dead."));
        let mut at = 0;
        for (size, dead, step) in WAVES {
            let list = wave(at, size, dead);
            at += size;
            let mut queued = 0;
            for group in list.chunks(GROUP) {
                let said = self.throw(comet_news, group, at).await?;
                if !said.is_yes() {
                    // The pause may come while the wave goes on.
                    self.claim("what comet heard within a wave was 250, or 451 once it was paused", said.code == 451);
                    break;
                }
                queued += usize::from(said.words.contains("queued as"));
            }
            let brake = self.step_reached(step).await;
            let held = if queued > 0 { format!(", {queued} messages wait in the outbox") } else { String::new() };
            let why = brake.map_or_else(|| "nothing happened".to_owned(), |brake| brake.charge.to_string());
            self.say(format!("   {size} more, {dead} of them dead{held}: {}, {why}", step.word()));
            self.claim(format!("comet's marketing stream was {} by its bounces", step.word()), brake.is_some());
        }
        self.paused_alone(comet, comet_news, atlas).await?;
        self.contact_was_told().await?;
        self.what_ses_saw(thrown, dead);
        Ok(())
    }

    async fn throw(
        &mut self,
        client: &mut Client,
        group: &[String],
        number: usize,
    ) -> Result<crate::cli::demo::client::Said, Failure> {
        let from = "news@comet.example";
        let octets = Letter { from, to: "readers@customers.example", subject: "Comet", fields: &[] }.octets()?;
        let opened = client.mail(from).await?;
        if !opened.is_yes() {
            self.answered(WHO, &opened, group.len(), "paused");
            return Ok(opened);
        }
        for address in group {
            client.rcpt(address).await?;
        }
        let said = client.data(&octets).await?;
        self.answered(WHO, &said, group.len(), "paused");
        let first = group.first().cloned().unwrap_or_default();
        self.bodies.insert(format!("Comet/{number}/{first}"), parted(&octets).1.to_vec());
        Ok(said)
    }

    /// Waits until the stream stands at `step` or further.
    async fn step_reached(&self, step: Step) -> Option<Brake> {
        let until = tokio::time::Instant::now() + STEP;
        loop {
            let brake = self.brake().filter(|brake| brake.is_in_force() && brake.step >= step);
            if brake.is_some() || tokio::time::Instant::now() > until {
                return brake;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What restrains comet's marketing, as the gate reads it.
    fn brake(&self) -> Option<Brake> {
        let directory = self.stage.desk.directory.load();
        let tenant = directory.tenant(&TenantId::parse(WHO.0).ok()?)?;
        tenant.streams.get(&StreamId::parse(WHO.1).ok()?).and_then(|stream| stream.standing.brake)
    }

    async fn paused_alone(
        &mut self,
        comet: &mut Client,
        comet_news: &mut Client,
        atlas: &mut Client,
    ) -> Result<(), Failure> {
        let rest = wave(1000, REST, REST / 8);
        let said = self.throw(comet_news, &rest, 0).await?;
        self.say(format!("   The other {REST}: {said}"));
        let named = said.words.contains("bounce rate") && said.words.contains("try after");
        self.claim(
            "the rest of the list met 451 with the rate, its limit and when it clears",
            said.code == 451 && named,
        );
        let reset = self.send(comet, ("comet", "transactional"), "user@customers.example", "Reset at comet").await?;
        self.say(format!("   comet's password resets go on: {reset}"));
        let other =
            self.send(atlas, ("atlas", "transactional"), "late@customers.example", "Reset late at atlas").await?;
        self.say(format!("   and so does atlas's mail: {other}"));
        let at_once = |said: &crate::cli::demo::client::Said| said.is_yes() && !said.words.contains("queued as");
        self.claim("comet's transactional stream went on", at_once(&reset));
        self.claim("atlas noticed nothing", at_once(&other));
        Ok(())
    }

    async fn contact_was_told(&mut self) -> Result<(), Failure> {
        let until = tokio::time::Instant::now() + STEP;
        let mails = || {
            let all = self.stage.messages.all();
            all.into_iter().filter(|message| message.destination == [CONTACT]).collect::<Vec<_>>()
        };
        while mails().len() < MAILS && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let mails = mails();
        let texts: Vec<String> = mails
            .iter()
            .map(|mail| String::from_utf8_lossy(&mail.raw).replace("=\r\n", "").replace("=20", " "))
            .collect();
        let paused = texts.iter().find(|text| text.contains("stream marketing of tenant comet is paused"));
        if let Some(text) = paused {
            self.say(format!("   Its contact {CONTACT} got {} mails; this is the last but one step's:\n", mails.len()));
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
            let shown = head.lines().filter(|line| line.starts_with("Subject:") || line.starts_with(' '));
            shown.chain([""]).chain(body.lines()).for_each(|line| self.say(format!("      {line}").trim_end()));
        }
        let own = texts.iter().all(|text| !text.contains("atlas") && !text.contains("bargain"));
        self.claim("comet's contact was told of each step, and of no other tenant", paused.is_some() && own);
        self.claim("each step was told once", mails.len() == MAILS);
        Ok(())
    }

    /// The account's bounce rate as SES has it, beside what it would have been.
    fn what_ses_saw(&mut self, thrown: usize, dead: usize) {
        let all = self.stage.messages.all();
        let recipients: Vec<&str> =
            all.iter().flat_map(|message| message.destination.iter().map(String::as_str)).collect();
        let of_comet: usize = all
            .iter()
            .filter(|message| message.tag("tenant") == Some(WHO.0) && message.tag("stream") == Some(WHO.1))
            .map(|message| message.destination.len())
            .sum();
        let bounced = recipients.iter().filter(|address| address.ends_with("@bounce.test")).count();
        let of_comet_bounced = recipients.iter().filter(|address| address.starts_with("dead")).count();
        let rate = |bad: usize, of: usize| percent(crate::policy::reputation::rate(bad as u64, of as u64));
        let (seen, without) = (
            rate(bounced, recipients.len()),
            rate(bounced - of_comet_bounced + dead, recipients.len() - of_comet + thrown),
        );
        self.say(format!(
            "\n   SES got {of_comet} of comet's {thrown}. The account's bounce rate: {seen}; without Bulkhead {without}, and rising."
        ));
        self.claim("most of the stale list never reached SES", of_comet * 2 < thrown && of_comet_bounced < dead / 2);
    }

    /// Recipients that wait in comet's part of the outbox.
    pub(super) async fn waiting_of_comet(&self) -> Result<usize, Failure> {
        let request = Request::OutboxList { tenant: Some(WHO.0.parse()?), stream: None, cause: None, after: None };
        match perform(&self.stage.desk, request, "demo").await? {
            Response::Held(page) => Ok(page.rows.iter().map(|row| row.recipients.open).sum()),
            _ => Err(strange()),
        }
    }
}

/// Addresses of which the first `dead` bounce.
fn wave(from: usize, size: usize, dead: usize) -> Vec<String> {
    let address = |n: usize| {
        if n < dead { format!("dead{}@bounce.test", from + n) } else { format!("old{}@customers.example", from + n) }
    };
    (0..size).map(address).collect::<BTreeSet<_>>().into_iter().collect()
}
