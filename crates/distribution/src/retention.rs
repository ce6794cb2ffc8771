//! Which tags and manifests of a repository go, by rules: decided over plain data, and then done in the same transaction
//! (`store/index/retention.rs`).
//!
//! **The rule.** A tag stays that one of the rule's `keep-…` keeps; a rule without any keeps them all. A manifest stays that
//! has a tag which stays, or that has been without one for less than `untagged-after` (always, if that is not said). What stays
//! keeps all that it names (an index its manifests), what it is about (its subject), and whatever is about it: signatures and
//! notes go with their image and never before it. A tag that is called by a digest (`sha256-0a0a….sig`, as cosign has it; the
//! distribution-spec's "Referrers Tag Schema") is about that manifest: it is none of the newest, and goes with it.

mod rules;

use std::collections::{HashMap, HashSet};

pub use rules::{Retention, RetentionError};
pub(crate) use rules::{Rule, seconds};

use crate::pattern::fits;

/// What a repository has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) manifests: Vec<ManifestFact>,
    pub(crate) tags: Vec<TagFact>,
}

/// Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestFact {
    pub(crate) digest: String,
    /// When it was last pushed, or lost a tag.
    pub(crate) named_at: i64,
    /// 0: never.
    pub(crate) pulled_at: i64,
    pub(crate) subject: Option<String>,
    /// Of an index.
    pub(crate) children: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagFact {
    pub(crate) name: String,
    /// Which of the manifests has it.
    pub(crate) manifest: usize,
    pub(crate) pushed_at: i64,
}

/// What goes, each with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By their places in [`Facts`].
    pub(crate) tags: Vec<(usize, String)>,
    /// The same. Their tags go with them, and are among the others.
    pub(crate) manifests: Vec<(usize, String)>,
}

/// See the module.
pub(crate) fn decide(rule: &Rule, facts: &Facts, now: i64) -> Plan {
    let places: HashMap<&str, usize> =
        facts.manifests.iter().enumerate().map(|(place, manifest)| (&*manifest.digest, place)).collect();
    // Tags by the digest of what they are about.
    let about: Vec<Option<usize>> =
        facts.tags.iter().map(|tag| places.get(digest_in(&tag.name)?.as_str()).copied()).collect();
    let stays = staying_tags(rule, facts, now);
    let mut kept = Kept::new(facts, &places, &about);
    let mut last_loss: Vec<i64> = facts.manifests.iter().map(|manifest| manifest.named_at).collect();
    for ((tag, stays), about) in facts.tags.iter().zip(&stays).zip(&about) {
        match (stays, about) {
            (true, None) => kept.add(tag.manifest),
            // It is untagged from now on, or goes with what it is about.
            _ => last_loss[tag.manifest] = now,
        }
    }
    for (place, manifest) in facts.manifests.iter().enumerate() {
        let is_young = |age: i64| now.saturating_sub(last_loss[place]) < age;
        let is_used = |age: i64| now.saturating_sub(manifest.pulled_at) < age;
        if rule.untagged_after.is_none_or(is_young) || rule.keep_pulled.is_some_and(is_used) {
            kept.add(place);
        }
    }
    let kept = kept.all();
    let mut plan = Plan::default();
    for (place, (tag, stays)) in facts.tags.iter().zip(&stays).enumerate() {
        match about[place] {
            None if !stays => plan.tags.push((place, rule.why(age(now, tag.pushed_at)))),
            Some(subject) if !kept.contains(&subject) => {
                plan.tags.push((place, format!("{} goes, which it is about", facts.manifests[subject].digest)));
            }
            _ => {}
        }
    }
    for (place, _) in facts.manifests.iter().enumerate().filter(|(place, _)| !kept.contains(place)) {
        let since = age(now, last_loss[place]);
        plan.manifests.push((place, format!("without a tag since {since} ago, and nothing that stays needs it")));
    }
    plan
}

/// Of each tag whether a `keep-…` keeps it.
fn staying_tags(rule: &Rule, facts: &Facts, now: i64) -> Vec<bool> {
    if !rule.is_about_tags() {
        return vec![true; facts.tags.len()];
    }
    let mut order: Vec<usize> =
        (0..facts.tags.len()).filter(|place| digest_in(&facts.tags[*place].name).is_none()).collect();
    order.sort_by(|one, other| {
        let key = |place: usize| (facts.tags[place].pushed_at, &facts.tags[place].name);
        key(*other).cmp(&key(*one))
    });
    let newest: HashSet<usize> = order.into_iter().take(rule.keep_newest.unwrap_or(0)).collect();
    let stays = |(place, tag): (usize, &TagFact)| {
        let is_within = |moment: i64, age: Option<i64>| age.is_some_and(|age| now.saturating_sub(moment) < age);
        // One that was just pushed nobody has had the time to pull.
        let used_at = tag.pushed_at.max(facts.manifests[tag.manifest].pulled_at);
        newest.contains(&place)
            || rule.keep_tags.iter().any(|pattern| fits(pattern.as_bytes(), tag.name.as_bytes()))
            || is_within(tag.pushed_at, rule.keep_younger)
            || is_within(used_at, rule.keep_pulled)
    };
    facts.tags.iter().enumerate().map(stays).collect()
}

/// Manifests that stay, and what they keep.
struct Kept {
    /// What each keeps.
    edges: Vec<Vec<usize>>,
    found: HashSet<usize>,
    rest: Vec<usize>,
}

impl Kept {
    fn new(facts: &Facts, places: &HashMap<&str, usize>, about: &[Option<usize>]) -> Self {
        let mut edges = vec![Vec::new(); facts.manifests.len()];
        for (place, manifest) in facts.manifests.iter().enumerate() {
            let known = |digest: &String| places.get(digest.as_str()).copied();
            edges[place].extend(manifest.children.iter().filter_map(known));
            if let Some(subject) = manifest.subject.as_ref().and_then(known) {
                edges[place].push(subject);
                edges[subject].push(place);
            }
        }
        for (tag, about) in facts.tags.iter().zip(about) {
            if let Some(subject) = about {
                edges[*subject].push(tag.manifest);
            }
        }
        Self { edges, found: HashSet::new(), rest: Vec::new() }
    }

    fn add(&mut self, place: usize) {
        if self.found.insert(place) {
            self.rest.push(place);
        }
    }

    /// With all that these keep, however long the way is.
    fn all(mut self) -> HashSet<usize> {
        while let Some(place) = self.rest.pop() {
            for next in std::mem::take(&mut self.edges[place]) {
                self.add(next);
            }
        }
        self.found
    }
}

/// `sha256-<digits>`, with or without something behind a full stop.
fn digest_in(tag: &str) -> Option<String> {
    let (algorithm, rest) = tag.split_once('-')?;
    let digits = rest.split('.').next()?;
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return None,
    };
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == length && digits.bytes().all(is_digit)).then(|| format!("{algorithm}:{digits}"))
}

fn age(now: i64, moment: i64) -> String {
    shown(now.saturating_sub(moment).max(0))
}

/// `3d`, `5h`, `7m`, `12s`: the largest unit that there is one of.
fn shown(seconds: i64) -> String {
    match seconds {
        86_400.. => format!("{}d", seconds / 86_400),
        3600.. => format!("{}h", seconds / 3600),
        60.. => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests;
