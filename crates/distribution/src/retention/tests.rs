use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;
const NOW: i64 = 1000 * DAY;

fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

/// Pushed so many days ago, and never pulled.
fn manifest(number: usize, days: i64) -> ManifestFact {
    ManifestFact {
        digest: digest(number),
        named_at: NOW - days * DAY,
        pulled_at: 0,
        subject: None,
        children: Vec::new(),
    }
}

fn tag(name: &str, manifest: usize, days: i64) -> TagFact {
    TagFact { name: name.to_owned(), manifest, pushed_at: NOW - days * DAY }
}

#[track_caller]
fn check(rule: &str, facts: &Facts, tags: &[&str], manifests: &[usize]) -> Plan {
    let plan = decide(&Rule::of(rule), facts, NOW);
    let gone: Vec<&str> = plan.tags.iter().map(|(place, _)| &*facts.tags[*place].name).collect();
    let gone_manifests: Vec<usize> = plan.manifests.iter().map(|(place, _)| *place).collect();
    assert_eq!((gone.as_slice(), gone_manifests.as_slice()), (tags, manifests), "{rule}");
    plan
}

#[test]
fn tags_stay_that_any_keep_keeps() {
    let mut facts = Facts {
        manifests: (0..5).map(|number| manifest(number, 100)).collect(),
        tags: vec![
            tag("v1", 0, 50),
            tag("v2", 1, 40),
            tag("latest", 2, 30),
            tag("nightly-1", 3, 20),
            tag("nightly-2", 4, 10),
        ],
    };
    facts.manifests[0].pulled_at = NOW - DAY;
    check("", &facts, &[], &[]);
    check("keep-newest = 9", &facts, &[], &[]);
    check("keep-newest = 2", &facts, &["v1", "v2", "latest"], &[]);
    check("keep-tags = [\"v*\", \"latest\"]", &facts, &["nightly-1", "nightly-2"], &[]);
    check("keep-younger = \"25d\"", &facts, &["v1", "v2", "latest"], &[]);
    check("keep-pulled = \"15d\"", &facts, &["v2", "latest", "nightly-1"], &[]);
    check("keep-newest = 1\nkeep-tags = [\"latest\"]\nkeep-pulled = \"2d\"", &facts, &["v2", "nightly-1"], &[]);
    // What has just lost its tag stays for the time of what has none.
    check("keep-newest = 4\nuntagged-after = \"7d\"", &facts, &["v1"], &[]);
    let plan = check("keep-newest = 4\nuntagged-after = \"0s\"", &facts, &["v1"], &[0]);
    assert_eq!(plan.tags[0].1, "pushed 50d ago, not among the newest 4");
    assert_eq!(plan.manifests[0].1, "without a tag since 0s ago, and nothing that stays needs it");
}

#[test]
fn what_has_no_tag_goes_after_its_time() {
    let mut facts = Facts { manifests: vec![manifest(0, 100), manifest(1, 8), manifest(2, 6)], tags: Vec::new() };
    check("", &facts, &[], &[]);
    check("untagged-after = \"7d\"", &facts, &[], &[0, 1]);
    facts.manifests[0].pulled_at = NOW - 3 * DAY;
    check("untagged-after = \"7d\"", &facts, &[], &[0, 1]);
    check("untagged-after = \"7d\"\nkeep-pulled = \"5d\"", &facts, &[], &[1]);
    facts.tags.push(tag("x", 1, 8));
    check("untagged-after = \"7d\"", &facts, &[], &[0]);
}

#[test]
fn what_stays_keeps_what_it_needs() {
    let of = |children: &[usize], subject: Option<usize>, number| ManifestFact {
        children: children.iter().copied().map(digest).collect(),
        subject: subject.map(digest),
        ..manifest(number, 100)
    };
    // 0: an index of 1 and 2; 3: signs 1; 4: is about 3; 5: about something that is not there; 6: an index of 7.
    let mut facts = Facts {
        manifests: vec![
            of(&[1, 2, 99], None, 0),
            of(&[], None, 1),
            of(&[], None, 2),
            of(&[], Some(1), 3),
            of(&[], Some(3), 4),
            of(&[], Some(98), 5),
            of(&[7], None, 6),
            of(&[], None, 7),
        ],
        tags: vec![tag("web", 0, 100)],
    };
    let rule = "untagged-after = \"7d\"";
    check(rule, &facts, &[], &[5, 6, 7]);
    // A signature that stays keeps what it signs, but not the index above.
    facts.tags = vec![tag("signature", 4, 100)];
    check(rule, &facts, &[], &[0, 2, 5, 6, 7]);
    facts.tags.clear();
    check(rule, &facts, &[], &[0, 1, 2, 3, 4, 5, 6, 7]);
    // A circle ends.
    facts.manifests[7].children.push(digest(6));
    facts.tags = vec![tag("x", 7, 1)];
    check(rule, &facts, &[], &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_tag_called_by_a_digest_goes_with_what_it_is_about() {
    let name = |number| format!("{}.sig", digest(number).replace(':', "-"));
    let mut facts = Facts {
        manifests: (0..5).map(|number| manifest(number, 100)).collect(),
        tags: vec![tag("v1", 0, 50), tag("v2", 1, 40), tag(&name(0), 2, 1), tag(&name(1), 3, 1), tag(&name(9), 4, 60)],
    };
    // It counts for no rule; one whose manifest is not there is as any other.
    let rule = "keep-newest = 1\nuntagged-after = \"0s\"";
    check(rule, &facts, &["v1", &name(0), &name(9)], &[0, 2, 4]);
    check("keep-newest = 1", &facts, &["v1", &name(9)], &[]);
    check("keep-newest = 1\nuntagged-after = \"7d\"", &facts, &["v1", &name(9)], &[]);
    facts.tags.remove(4);
    assert_eq!(digest_in(&name(9)), Some(digest(9)));
    for no in ["sha256-", "sha256-00", "v1-2", "md5-00", &name(1).to_uppercase()] {
        assert_eq!(digest_in(no), None, "{no}");
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let manifest = (0..30i64, 0..30i64, proptest::option::of(0..8usize), prop::collection::vec(0..8usize, 0..3));
    let one_tag = (0..8usize, 0..30i64, proptest::option::of(0..8usize));
    (prop::collection::vec(manifest, 1..8), prop::collection::vec(one_tag, 0..10)).prop_map(|(manifests, tags)| {
        let count = manifests.len();
        let manifests =
            manifests.into_iter().enumerate().map(|(number, (named, pulled, subject, children))| ManifestFact {
                digest: digest(number),
                named_at: NOW - named * DAY,
                pulled_at: NOW - pulled * DAY,
                subject: subject.map(digest),
                children: children.into_iter().map(digest).collect(),
            });
        let tags = tags.into_iter().enumerate().map(|(at, (place, pushed, about))| {
            let name = about.map_or_else(|| format!("v{at}"), |it| format!("{}.{at}", digest(it).replace(':', "-")));
            tag(&name, place % count, pushed)
        });
        Facts { manifests: manifests.collect(), tags: tags.collect() }
    })
}

fn rule() -> impl Strategy<Value = String> {
    let time = |name: &'static str| {
        proptest::option::of(0..40u32)
            .prop_map(move |days| days.map(|days| format!("{name} = \"{days}d\"\n")).unwrap_or_default())
    };
    let newest = proptest::option::of(1..5usize).prop_map(|count| count.map(|it| format!("keep-newest = {it}\n")));
    (newest, time("keep-younger"), time("keep-pulled"), time("untagged-after"))
        .prop_map(|(newest, younger, pulled, after)| newest.unwrap_or_default() + &younger + &pulled + &after)
}

/// What is left once it is done.
fn carried_out(facts: &Facts, plan: &Plan) -> Facts {
    let gone: HashSet<usize> = plan.manifests.iter().map(|(place, _)| *place).collect();
    let gone_tags: HashSet<usize> = plan.tags.iter().map(|(place, _)| *place).collect();
    let (mut left, mut places) = (Facts::default(), HashMap::new());
    for (place, manifest) in facts.manifests.iter().enumerate().filter(|(place, _)| !gone.contains(place)) {
        places.insert(place, left.manifests.len());
        left.manifests.push(manifest.clone());
    }
    for (place, tag) in facts.tags.iter().enumerate() {
        let manifest = places.get(&tag.manifest).copied();
        match manifest {
            Some(manifest) if gone_tags.contains(&place) => left.manifests[manifest].named_at = NOW,
            Some(manifest) => left.tags.push(TagFact { manifest, ..tag.clone() }),
            None => {}
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing that stays lacks what it needs, and no tag stays without its manifest.
    #[test]
    fn what_stays_is_whole(facts in facts(), rule in rule()) {
        let plan = decide(&Rule::of(&rule), &facts, NOW);
        let gone: HashSet<usize> = plan.manifests.iter().map(|(place, _)| *place).collect();
        let gone_tags: HashSet<usize> = plan.tags.iter().map(|(place, _)| *place).collect();
        let is_gone = |digest: &String| facts.manifests.iter().position(|it| it.digest == *digest).is_some_and(|it| gone.contains(&it));
        for (place, manifest) in facts.manifests.iter().enumerate() {
            if gone.contains(&place) {
                prop_assert!(!manifest.subject.iter().any(|subject| {
                    facts.manifests.iter().position(|it| it.digest == *subject).is_some_and(|it| !gone.contains(&it))
                }), "it is about one that stays");
            } else {
                prop_assert!(!manifest.children.iter().chain(&manifest.subject).any(is_gone), "it needs one that goes");
            }
        }
        for (place, tag) in facts.tags.iter().enumerate() {
            prop_assert!(gone_tags.contains(&place) || !gone.contains(&tag.manifest), "{} stays, its manifest goes", tag.name);
        }
    }

    /// The newest tags stay, whatever else.
    #[test]
    fn the_newest_stay(facts in facts(), count in 1..5usize, rest in rule()) {
        let mut rule = Rule::of(&rest);
        rule.keep_newest = Some(count);
        let plan = decide(&rule, &facts, NOW);
        let is_plain = |tag: &&TagFact| tag.name.starts_with('v');
        let plain = facts.tags.iter().filter(is_plain).count();
        let gone = plan.tags.iter().filter(|(place, _)| facts.tags[*place].name.starts_with('v')).count();
        prop_assert!(plain - gone >= count.min(plain));
    }

    /// What was carried out is over: the next round at the same moment finds nothing, unless something is now about nothing.
    #[test]
    fn a_second_round_finds_no_manifest_more(facts in facts(), rule in rule()) {
        let rule = Rule::of(&rule);
        let left = carried_out(&facts, &decide(&rule, &facts, NOW));
        let again = decide(&rule, &left, NOW);
        let plain = again.tags.iter().filter(|(place, _)| left.tags[*place].name.starts_with('v')).count();
        prop_assert_eq!(plain, 0);
    }
}
