//! `eb profile`

use std::collections::BTreeSet;

use eb_contract::stores::PolicyRev;
use eb_contract::{Capabilities, ErrorKind, Topic};
use eb_profile::{OpenError, Platform, Profile, Purpose, Setting};
use serde::Serialize;

use crate::args::{Global, Profile as What};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

pub(crate) async fn run(ui: &mut Ui, global: &Global, what: What) -> Outcome {
    let profile = Profile::load(&global.profile)?;
    profile.notices.iter().for_each(|notice| ui.note(notice));
    match what {
        What::Show => show(ui, &profile),
        What::Check => check(ui, profile).await,
    }
}

#[derive(Serialize)]
struct Shown<'p> {
    profile_id: &'p str,
    source: String,
    built_in: bool,
    config_root: Option<String>,
    base: String,
    notices: &'p [String],
    settings: Vec<ShownSetting<'p>>,
}

#[derive(Serialize)]
struct ShownSetting<'p> {
    key: &'p str,
    value: &'p str,
    secret: bool,
    origin: String,
}

fn show(ui: &mut Ui, profile: &Profile) -> Outcome {
    let shown = |s: &Setting| s.origin.to_string();
    if ui.is_json() {
        let settings = profile.settings.iter().map(|s| ShownSetting {
            key: &s.key,
            value: &s.value,
            secret: s.secret,
            origin: shown(s),
        });
        ui.json(&Shown {
            profile_id: &profile.profile_id,
            source: profile.source.name(),
            built_in: profile.source.is_built_in(),
            config_root: profile.source.config_root().map(|p| p.display().to_string()),
            base: profile.source.base().display().to_string(),
            notices: &profile.notices,
            settings: settings.collect(),
        })?;
    } else {
        let rows: Vec<_> =
            profile.settings.iter().map(|s| vec![s.key.clone(), s.value.clone(), shown(s)]).collect();
        ui.line(&format!("{} from {}", profile.profile_id, profile.source.name()))?;
        ui.table(&["KEY", "VALUE", "FROM"], &rows)?;
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Checked {
    profile_id: String,
    source: String,
    built_in: bool,
    config_root: Option<String>,
    event_bus_kind: &'static str,
    notices: Vec<String>,
    policy_rev: PolicyRev,
    /// What the gate publishes to.
    streams: Vec<Topic>,
    /// Those that stores lie in.
    databases: Vec<Database>,
    /// `None` where the bus has not been made yet.
    capabilities: Option<Capabilities>,
}

#[derive(Serialize)]
struct Database {
    section: &'static str,
    found: String,
}

async fn check(ui: &mut Ui, profile: Profile) -> Outcome {
    let source = profile.source.clone();
    let kind = profile.wiring.event_bus_kind.as_str();
    let planned: BTreeSet<Topic> = profile.wiring.event_bus.topics.iter().map(|(t, _)| t.clone()).collect();
    let will_make = profile.wiring.event_bus.create_topics;
    let (profile_id, notices) = (profile.profile_id.clone(), profile.notices.clone());
    let policy = profile.load_policy()?;
    let platform = match Platform::open(profile.clone(), Purpose::Reading).await {
        Ok(platform) => Some(platform),
        Err(OpenError::Bus(e)) if *e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let there = match &platform {
        Some(platform) => platform.reader().topics().await?,
        None => Vec::new(),
    };
    for stream in policy.streams() {
        let will_be_there = will_make && planned.contains(&stream);
        if !will_be_there && !there.contains(&stream) {
            let what = format!("the policy publishes to {stream}, which does not exist");
            return Err(Failure::failed("profile", what).advise(format!(
                "`eb topics create {stream} --shards N` makes it, or wiring.event_bus.topics with create_topics: true"
            )));
        }
    }
    let found = profile.look_at_databases().await?;
    let checked = Checked {
        profile_id,
        source: source.name(),
        built_in: source.is_built_in(),
        config_root: source.config_root().map(|p| p.display().to_string()),
        event_bus_kind: kind,
        notices,
        policy_rev: policy.rev().clone(),
        streams: policy.streams(),
        databases: found.into_iter().map(|(section, found)| Database { section, found }).collect(),
        capabilities: platform.map(|p| p.capabilities().clone()),
    };
    if ui.is_json() {
        ui.json(&checked)?;
    } else {
        checked.for_people(ui)?;
    }
    Ok(Exit::Done)
}

impl Checked {
    fn for_people(&self, ui: &mut Ui) -> Result<(), Failure> {
        let row = |key: &str, value: String| vec![key.to_owned(), value];
        let policies = self.config_root.clone().unwrap_or_else(|| "built in".to_owned());
        let rev = &self.policy_rev;
        let mut rows = vec![
            row("profile", format!("{} from {}", self.profile_id, self.source)),
            row("policies", policies),
            row("policy", format!("{} {} {}", rev.policy_id, rev.revision, rev.content_digest)),
            row("streams", self.streams.iter().map(Topic::as_str).collect::<Vec<_>>().join(", ")),
            row("event bus", self.event_bus_kind.to_owned()),
        ];
        rows.extend(self.databases.iter().map(|d| row(&d.section.replace('_', " "), d.found.clone())));
        match &self.capabilities {
            None => rows.push(row("state", "nothing written yet; made when something is".to_owned())),
            Some(caps) => {
                let facts = serde_json::to_value(caps)
                    .map_err(|e| Failure::failed("output", format!("cannot write the capabilities: {e}")))?;
                for (name, value) in
                    facts.as_object().into_iter().flatten().filter(|(name, _)| *name != "notes")
                {
                    rows.push(row(&name.replace('_', " "), value.to_string().replace('"', "")));
                }
                rows.extend(caps.notes.iter().map(|note| row("note", note.clone())));
            }
        }
        ui.table(&["WHAT", "VALUE"], &rows)?;
        ui.line("the profile is fine")
    }
}
