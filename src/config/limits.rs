//! A file of other limits, to be tried on what was sent: `[reputation]` as the settings have it, and the
//! limits of tenants and streams as a tenants file has them.
//!
//! Promises: what the file does not say is as it is in force; every problem at once, with its line.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{Document, text_of};
use super::groups::Reputation;
use super::problem::{Fault, Place, Problem};
use super::tenants::{id, limits};
use crate::mail::{StreamId, TenantId};
use crate::policy::reputation::Rules;
use crate::policy::tenant::Limits;

/// Other limits.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// The relay's rules.
    pub rules: Rules,
    /// Tenants with limits of their own.
    pub tenants: BTreeMap<TenantId, TriedTenant>,
}

/// A tenant with other limits.
#[derive(Clone, PartialEq, Debug)]
pub struct TriedTenant {
    /// Where it stands.
    pub place: Place,
    /// Its own, in place of those it has; `None`: as they are.
    pub limits: Option<Limits>,
    /// Whether its standing would be in force.
    pub enforce: Option<bool>,
    /// Its streams', with where they stand.
    pub streams: BTreeMap<StreamId, (Place, Option<Limits>)>,
}

/// Reads a file of other limits; `present` are the rules in force.
pub fn load_limits(file: &Path, present: Rules) -> Result<Tried, Vec<Problem>> {
    read_limits(&file.display().to_string(), &text_of(file)?, present)
}

/// As [`load_limits`], from text; `file` is its name in problems.
pub fn read_limits(file: &str, text: &str, present: Rules) -> Result<Tried, Vec<Problem>> {
    let document = Document::parse(file, text)?;
    let mut top = document.top();
    let said = top.given("reputation").is_some() || top.given("tenant").is_some();
    if !said {
        let cure = "write [reputation] with the settings to try, or [[tenant]] with id and limits";
        top.fault("reputation", Fault::new("is missing, and so are tenants: there is nothing to try", cure));
    }
    let section = top.section("reputation", "The rules to try; what is not given is as it is in force.");
    let Reputation { rules } = Reputation::over(section, present);
    let mut tenants = BTreeMap::new();
    for mut section in top.tables("tenant") {
        let cure = "write id = \"acme\", the tenant whose limits these are";
        let id = section.needed("id", cure, |given| id(given, TenantId::parse));
        if let Some(id) = &id {
            section.name("id", id.as_str());
        }
        let place = section.place();
        let limits = section.given("limits").is_some().then(|| limits(&mut section));
        let enforce = section.read("enforce", super::given::Given::flag);
        let mut streams = BTreeMap::new();
        for mut section in section.tables("stream") {
            let cure = "write id = \"marketing\", the stream whose limits these are";
            let id = section.needed("id", cure, |given| self::id(given, StreamId::parse));
            if let Some(id) = &id {
                section.name("id", id.as_str());
            }
            let place = section.place();
            let limits = section.given("limits").is_some().then(|| self::limits(&mut section));
            section.end();
            streams.extend(id.map(|id| (id, (place, limits))));
        }
        section.end();
        if let Some(id) = id {
            let tried = TriedTenant { place: place.clone(), limits, enforce, streams };
            if let Some(first) = tenants.insert(id, tried) {
                let what = format!("is there already at {}", first.place);
                top.fault("tenant", Fault::new(what, "say all of a tenant in one place"));
            }
        }
    }
    top.end();
    document.end()?;
    Ok(Tried { rules, tenants })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        read_limits("try.toml", text, Rules::default()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_as_it_is_in_force() {
        let present = Rules { least_bounces: 9, ..Rules::default() };
        let text = "[reputation]\nmarketing_pause_bounce = 0.03\n[[tenant]]\nid = \"acme\"\nlimits = { pause_bounce = 0.02 }\n\
                    [[tenant.stream]]\nid = \"news\"\nlimits = { warn_bounce = 0.01 }\n[[tenant.stream]]\nid = \"reset\"\n";
        let tried = read_limits("try.toml", text, present).unwrap();
        assert_eq!((tried.rules.marketing.pause_bounce, tried.rules.least_bounces), (0.03, 9));
        let acme = &tried.tenants[&TenantId::parse("acme").unwrap()];
        assert_eq!(acme.limits.and_then(|limits| limits.pause_bounce), Some(0.02));
        let streams: Vec<_> = acme.streams.values().map(|(place, limits)| (place.line, limits.is_some())).collect();
        assert_eq!(streams, [(Some(6), true), (Some(9), false)]);
    }

    #[test]
    fn a_bad_file_is_told_with_line_key_and_cure() {
        let all = told(
            "[reputation]\nmarketing_pause_bounse = 0.03\nleast_bounces = 0\n[[tenant]]\nid = \"Acme!\"\n\
                        [[tenant]]\nid = \"b\"\nlimits = { warn_bounce = 2, pause_bounce = 0.1 }\nstreams = 1\n",
        );
        assert!(
            all.iter().any(|line| line.starts_with("try.toml:2: reputation.marketing_pause_bounse: ")
                && line.contains("did you mean marketing_pause_bounce?")),
            "{all:?}"
        );
        for part in [
            "try.toml:3: reputation.least_bounces: ",
            "try.toml:5: tenant.0.id: ",
            "try.toml:8: tenant.b.limits.warn_bounce: ",
            "try.toml:9: tenant.b.streams: ",
        ] {
            assert!(all.iter().any(|line| line.starts_with(part)), "{part}: {all:?}");
        }
        assert!(told("")[0].contains("there is nothing to try"), "{:?}", told(""));
        assert!(told("[reputation")[0].starts_with("try.toml:1: is not TOML"));
        let twice = told("[[tenant]]\nid = \"a\"\n[[tenant]]\nid = \"a\"\n");
        assert!(twice[0].contains("is there already at line 1"), "{twice:?}");
    }
}
