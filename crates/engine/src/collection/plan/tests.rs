use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const DAY: i64 = 24 * 3600;

fn digest(number: u8) -> Digest {
    Digest::from_sha256([number; 32])
}

/// Layers by number, each of ten bytes times its number.
fn bytes() -> HashMap<Digest, u64> {
    (0..=20).map(|number| (digest(number), u64::from(number) * 10)).collect()
}

fn item(kind: Kind, id: &str, age_days: i64, layers: &[u8]) -> Item {
    Item {
        kind,
        id: id.to_owned(),
        last_used: now() - SignedDuration::from_secs(age_days * DAY),
        uses: 0,
        created: now(),
        layers: layers.iter().copied().map(digest).collect(),
        own_bytes: 0,
        parent: None,
        holder: None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000 * DAY).unwrap()
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY.unsigned_abs())
}

fn items() -> Vec<Item> {
    use Kind::{BuildCache, DanglingImage, TaggedImage};
    vec![
        item(TaggedImage, "base", 50, &[1]),
        item(TaggedImage, "web", 40, &[1, 5]),
        Item {
            holder: Some(Holder::Container("db".into(), Some("shop".into()))),
            ..item(TaggedImage, "postgres", 90, &[6])
        },
        item(DanglingImage, "older", 10, &[1, 7]),
        item(DanglingImage, "today", 0, &[1, 8]),
        item(BuildCache, "compiled", 3, &[9]),
        Item { own_bytes: 40, ..item(BuildCache, "pip", 5, &[]) },
        item(BuildCache, "of-web", 20, &[5]),
        Item { holder: Some(Holder::Work), ..item(BuildCache, "building", 9, &[10]) },
        item(BuildCache, "nothing", 30, &[]),
    ]
}

fn rules(images: CollectedImages, missing_bytes: u64) -> Rules {
    Rules { images, unused_for: days(1), keep_duration: None, reserved_cache_bytes: 0, missing_bytes }
}

#[test]
fn what_goes_first_is_what_can_be_made_again() {
    use CollectedImages::{Dangling, None, Unused};
    let kept_for = |days_kept| Rules { keep_duration: Some(days(days_kept)), ..rules(Unused, 0) };
    let table: &[(Rules, &[(&str, u64)])] = &[
        (rules(Unused, 0), &[]),
        (rules(None, 1), &[("pip", 40)]),
        (rules(None, 41), &[("pip", 40), ("compiled", 90)]),
        (rules(None, 1 << 40), &[("pip", 40), ("compiled", 90)]),
        (rules(Dangling, 131), &[("pip", 40), ("compiled", 90), ("older", 70)]),
        (rules(Dangling, 1 << 40), &[("pip", 40), ("compiled", 90), ("older", 70)]),
        // The base gives nothing back as long as others have its layer; of web goes what the cache has of it.
        (rules(Unused, 201), &[("pip", 40), ("compiled", 90), ("older", 70), ("web", 0), ("of-web", 50)]),
        (rules(Unused, 1 << 40), &[("pip", 40), ("compiled", 90), ("older", 70), ("web", 0), ("of-web", 50)]),
        (Rules { reserved_cache_bytes: 220, ..rules(None, 1 << 40) }, &[]),
        (Rules { reserved_cache_bytes: 100, ..rules(None, 1 << 40) }, &[("pip", 40), ("compiled", 90)]),
        (
            Rules { unused_for: days(0), ..rules(Dangling, 201) },
            &[("pip", 40), ("compiled", 90), ("older", 70), ("today", 80)],
        ),
        // However much is free.
        (kept_for(45), &[("base", 0)]),
        (kept_for(40), &[("base", 0), ("web", 0)]),
        (Rules { images: Dangling, ..kept_for(9) }, &[("older", 70)]),
    ];
    let (items, bytes) = (items(), bytes());
    for (rules, expected) in table {
        let plan = plan(&items, &bytes, rules, now());
        let going: Vec<(&str, u64)> =
            plan.going.iter().map(|(at, bytes, _)| (items[*at].id.as_str(), *bytes)).collect();
        assert_eq!(going, *expected, "{rules:?}");
        assert_eq!(plan.going.len() + plan.staying.len(), items.len());
    }
}

#[test]
fn an_image_goes_only_if_what_builds_keep_of_it_may_go_too() {
    let items = [item(Kind::TaggedImage, "web", 40, &[5]), item(Kind::BuildCache, "of-web", 20, &[5])];
    for (reserved_cache_bytes, going) in [(0, &[(0, 0), (1, 50)][..]), (1, &[]), (100, &[])] {
        let plan = plan(&items, &bytes(), &Rules { reserved_cache_bytes, ..rules(CollectedImages::Unused, 50) }, now());
        let gone: Vec<(usize, u64)> = plan.going.iter().map(|(at, bytes, _)| (*at, *bytes)).collect();
        assert_eq!(gone, going, "{reserved_cache_bytes}");
    }
}

#[test]
fn of_one_build_what_was_done_last_goes_first() {
    let step = |id: &str, uses, created_s| {
        let created = Timestamp::from_second(created_s).unwrap();
        Item { uses, created, ..item(Kind::BuildCache, id, 3, &[u8::try_from(created_s).unwrap()]) }
    };
    let items = [step("first", 0, 1), step("last", 0, 3), step("second", 0, 2), step("found", 4, 4)];
    let plan = plan(&items, &bytes(), &rules(CollectedImages::None, 1 << 40), now());
    let gone: Vec<&str> = plan.going.iter().map(|(at, ..)| items[*at].id.as_str()).collect();
    assert_eq!(gone, ["last", "second", "first", "found"]);
}

#[test]
fn many_are_decided_over_at_once() {
    let of = |kind, number: u32| Item {
        layers: vec![
            digest(0),
            Digest::from_sha256([&number.to_be_bytes()[..], &[1; 28]].concat().try_into().unwrap()),
        ],
        ..item(kind, &number.to_string(), i64::from(number % 50) + 2, &[])
    };
    let caches = (0..1000).map(|number| of(Kind::BuildCache, number));
    let items: Vec<Item> = caches.chain((600..1300).map(|number| of(Kind::DanglingImage, number))).collect();
    let bytes = items.iter().map(|item| (item.layers[1].clone(), 10)).collect();
    let begun = std::time::Instant::now();
    let plan = plan(&items, &bytes, &rules(CollectedImages::Unused, u64::MAX), now());
    assert_eq!((plan.going.len(), plan.staying.len()), (items.len(), 0));
    // Of a build that is not optimized, on a machine that has other things to do.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_stays_says_why() {
    let mut items = items();
    items.push(Item { parent: Some("base".into()), ..item(Kind::TaggedImage, "sha256:0123456789abcdef", 0, &[1]) });
    items.push(Item { holder: Some(Holder::BuilderSettings), ..item(Kind::BuildCache, "kept", 9, &[11]) });
    let why = |images, missing, id: &str| {
        let plan = plan(&items, &bytes(), &rules(images, missing), now());
        plan.staying.iter().find(|(at, ..)| items[*at].id == id).map(|(_, _, why)| why.to_string()).unwrap_or_default()
    };
    use CollectedImages::{Dangling, None, Unused};
    for (images, missing, id, words) in [
        (Unused, 0, "compiled", "there is room enough"),
        (Unused, 0, "web", "there is room enough"),
        (None, 0, "older", "no image goes by itself (images is \"none\")"),
        (Dangling, 0, "web", "a tag names it (images is \"dangling\")"),
        (Unused, 1 << 40, "postgres", "container db of the Compose project shop stands on it"),
        (Unused, 1 << 40, "today", "somebody has wanted it within 24h (imagesUnusedFor)"),
        (Unused, 1 << 40, "base", "image 0123456789ab was made from it"),
        (Unused, 1 << 40, "building", "a build, a push or a save has it at this moment"),
        (Unused, 1 << 40, "nothing", "others have all that it is made of: it takes no room of its own"),
        (Unused, 1 << 40, "kept", "the settings keep it (builder.gc.enabled is false)"),
    ] {
        assert_eq!(why(images, missing, id), words, "{id}");
    }
    let reserved = Rules { reserved_cache_bytes: 1 << 40, ..rules(None, 1) };
    let plan = plan(&items, &bytes(), &reserved, now());
    let (_, _, why) = plan.staying.iter().find(|(at, ..)| items[*at].id == "pip").unwrap();
    assert_eq!(why.to_string(), "so much of what builds keep stays (reservedSpace)");
    let texts =
        [days(30), Duration::from_secs(90), Duration::from_secs(5400)].map(|limit| Going::Outlived(limit).to_string());
    assert!(texts[0].contains(" 720h ") && texts[1].contains(" 90s ") && texts[2].contains(" 90m "), "{texts:?}");
}

fn any_item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![Just(Kind::BuildCache), Just(Kind::DanglingImage), Just(Kind::TaggedImage)];
    let layers = prop::collection::vec(0u8..12, 0..4);
    (kind, 0i64..60, layers, 0u64..3, prop::option::weighted(0.2, 0usize..12), prop::bool::weighted(0.2)).prop_map(
        |(kind, age, layers, own, parent, is_held)| Item {
            own_bytes: if kind == Kind::BuildCache { own * 7 } else { 0 },
            parent: parent.filter(|_| kind != Kind::BuildCache).map(|parent| parent.to_string()),
            holder: is_held.then_some(Holder::Work),
            ..item(kind, "", age, &layers)
        },
    )
}

/// Bytes of all that these have.
fn occupied<'a>(items: impl Iterator<Item = &'a Item>) -> u64 {
    let (mut layers, mut own): (BTreeSet<&Digest>, u64) = Default::default();
    for item in items {
        layers.extend(&item.layers);
        own += item.own_bytes;
    }
    layers.iter().map(|layer| bytes()[*layer]).sum::<u64>() + own
}

proptest! {
    #[test]
    fn a_plan_takes_what_it_may_and_no_more_than_it_takes(
        mut items in prop::collection::vec(any_item(), 0..12),
        images in prop_oneof![Just(CollectedImages::None), Just(CollectedImages::Dangling), Just(CollectedImages::Unused)],
        (unused, keep) in (0u64..30, prop::option::of(0u64..60)),
        (reserved, missing) in (prop_oneof![Just(0u64), 0u64..300], 0u64..900),
    ) {
        for (number, item) in items.iter_mut().enumerate() {
            item.id = number.to_string();
            // Made from one that was there before.
            item.parent = item.parent.take().filter(|parent| parent.parse::<usize>().unwrap() < number);
        }
        let rules = Rules {
            images,
            unused_for: days(unused),
            keep_duration: keep.map(days),
            reserved_cache_bytes: reserved,
            missing_bytes: missing,
        };
        let plan = plan(&items, &bytes(), &rules, now());
        let gone: Vec<usize> = plan.going.iter().map(|(at, ..)| *at).collect();
        let stays: BTreeSet<usize> = plan.staying.iter().map(|(at, ..)| *at).collect();
        prop_assert_eq!(gone.len() + stays.len(), items.len());
        prop_assert!(gone.iter().all(|at| !stays.contains(at)));
        // What is said to come back does.
        let freed: u64 = plan.going.iter().map(|(_, bytes, _)| bytes).sum();
        let left = occupied(stays.iter().map(|at| &items[*at]));
        prop_assert_eq!(freed, occupied(items.iter()) - left);
        // Who goes for room makes some, if only with what builds keep of it.
        for (place, (at, bytes, why)) in plan.going.iter().enumerate() {
            let next = plan.going.get(place + 1);
            let is_followed = next.is_some_and(|(next, bytes, _)| items[*next].kind == Kind::BuildCache && *bytes > 0);
            prop_assert!(*why != Going::Room || *bytes > 0 || is_followed, "{} goes for nothing", items[*at].id);
        }
        // What may not go has not.
        for (place, at) in gone.iter().enumerate() {
            let item = &items[*at];
            prop_assert!(item.holder.is_none());
            if item.kind != Kind::BuildCache {
                prop_assert!(images != CollectedImages::None);
                prop_assert!(images == CollectedImages::Unused || item.kind == Kind::DanglingImage);
                prop_assert!(item.last_used <= now() - SignedDuration::try_from(days(unused)).unwrap());
                let children = items.iter().filter(|child| child.parent.as_ref() == Some(&item.id));
                for child in children {
                    let child: usize = child.id.parse().unwrap();
                    prop_assert!(gone[..place].contains(&child), "{} went before {child}", item.id);
                }
            }
        }
        // No more than is missing, and as much as can be.
        let outlived = plan.going.iter().filter(|(.., why)| matches!(why, Going::Outlived(_))).count();
        if plan.going.len() > outlived {
            let before: u64 = plan.going[..plan.going.len() - 1].iter().map(|(_, bytes, _)| bytes).sum();
            prop_assert!(before < missing);
        }
        if freed < missing {
            prop_assert!(plan.staying.iter().all(|(.., why)| *why != Staying::Enough));
        }
        // So much stays of what builds keep, if there was so much.
        let caches = |all: &mut dyn Iterator<Item = usize>| -> u64 {
            let shown: BTreeSet<usize> = all.collect();
            let of_images = |layer: &Digest| stays.iter().any(|at| items[*at].kind != Kind::BuildCache && items[*at].layers.contains(layer));
            let mut own: BTreeSet<&Digest> = BTreeSet::new();
            let mut bytes_own = 0;
            for at in shown.iter().filter(|at| items[**at].kind == Kind::BuildCache) {
                own.extend(items[*at].layers.iter().filter(|layer| !of_images(layer)));
                bytes_own += items[*at].own_bytes;
            }
            own.iter().map(|layer| bytes()[*layer]).sum::<u64>() + bytes_own
        };
        let took_cache = gone.iter().any(|at| items[*at].kind == Kind::BuildCache);
        if took_cache {
            prop_assert!(caches(&mut stays.iter().copied()) >= reserved);
        }
    }
}

#[test]
fn what_went_is_counted_and_not_what_was_to_go() {
    let bytes = bytes();
    let stays = BTreeSet::from([digest(3)]);
    let mut layers = Layers::new(&bytes);
    let mut given_back = |own_bytes, of: &[u8]| {
        let item = Item { own_bytes, ..item(Kind::BuildCache, "any", 1, of) };
        layers.given_back(&item, |layer| stays.contains(layer))
    };
    assert_eq!(given_back(7, &[1, 2]), 37);
    // The one that was to go before it has stayed, with layer 3.
    assert_eq!(given_back(0, &[3, 4]), 40);
    assert_eq!(given_back(0, &[1, 4, 5, 5]), 50, "each layer goes once");
}
