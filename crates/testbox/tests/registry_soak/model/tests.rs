use super::Operation::{DeleteBlob, DeleteManifest, DeleteTag, GiveBlob, PutManifest};
use super::*;

const SECOND: Moment = 1_000_000;

/// Two repositories, the second of which has rules. Manifest 0 names blob 0, manifest 1 is an index of it, manifest 2 is
/// about it; of the tags the first stays.
fn model() -> Model {
    let shapes = vec![
        Shape { blobs: vec![0], ..Shape::default() },
        Shape { children: vec![0], ..Shape::default() },
        Shape { subject: Some(0), ..Shape::default() },
    ];
    Model::new(Terms { grace: Duration::from_secs(4), first_passing: 1, kept_tags: 1 }, shapes, 2, 2, 2)
}

/// Something that took a moment each to begin and to end.
fn did(model: &mut Model, at: Moment, operation: Operation) {
    let ticket = model.begin_at(operation, at);
    model.done_at(ticket, at + 1);
}

#[test]
fn a_blob_stays_for_the_grace_time_or_as_long_as_it_is_named() {
    let mut model = model();
    assert_eq!(model.blob(0, 0, 1, 1), Presence::MustNot);
    did(&mut model, 10, GiveBlob { repository: 0, blob: 0 });
    did(&mut model, 10, GiveBlob { repository: 0, blob: 1 });
    assert_eq!(model.blob(0, 0, 20, 20), Presence::Must);
    assert_eq!(model.blob(0, 0, 20, 4 * SECOND), Presence::May);
    assert_eq!(model.blob(1, 0, 20, 20), Presence::MustNot);
    did(&mut model, SECOND, PutManifest { repository: 0, manifest: 0, tag: None });
    assert_eq!(model.blob(0, 0, 9 * SECOND, 9 * SECOND), Presence::Must);
    assert_eq!(model.blob(0, 1, 9 * SECOND, 9 * SECOND), Presence::May);
    // Somebody asked for it.
    model.see_at(0, 1, 8 * SECOND, 8 * SECOND + 1);
    assert_eq!(model.blob(0, 1, 9 * SECOND, 9 * SECOND), Presence::Must);
    did(&mut model, 9 * SECOND, DeleteManifest { repository: 0, manifest: 0 });
    assert_eq!(model.blob(0, 0, 10 * SECOND, 10 * SECOND), Presence::May);
    did(&mut model, 10 * SECOND, DeleteBlob { repository: 0, blob: 1 });
    assert_eq!(model.blob(0, 1, 11 * SECOND, 11 * SECOND), Presence::MustNot);
}

/// It may have gone, and come again while somebody looked.
#[test]
fn who_looks_while_a_blob_comes_need_not_find_it() {
    let mut model = model();
    did(&mut model, 10, GiveBlob { repository: 0, blob: 0 });
    let again = model.begin_at(GiveBlob { repository: 0, blob: 0 }, 9 * SECOND);
    model.done_at(again, 9 * SECOND + 20);
    assert_eq!(model.blob(0, 0, 9 * SECOND + 10, 9 * SECOND + 30), Presence::May);
    assert_eq!(model.blob(0, 0, 9 * SECOND + 30, 9 * SECOND + 40), Presence::Must);
}

#[test]
fn a_tag_leads_to_one_of_those_that_were_pushed_last() {
    let mut model = model();
    did(&mut model, 10, PutManifest { repository: 0, manifest: 0, tag: Some(0) });
    assert_eq!(model.tag(0, 0, 20, 20), BTreeSet::from([Some(0)]));
    let lost = model.begin_at(PutManifest { repository: 0, manifest: 2, tag: Some(0) }, 30);
    model.lost(lost);
    assert_eq!(model.tag(0, 0, 40, 40), BTreeSet::from([Some(0), Some(2)]));
    assert_eq!(model.manifest(0, 2, 40, 40), Presence::May);
    model.ended_at(50);
    did(&mut model, 60, DeleteTag { repository: 0, tag: 0 });
    assert_eq!(model.tag(0, 0, 70, 70), BTreeSet::from([None]));
    assert_eq!(model.manifest(0, 0, 70, 70), Presence::Must);
}

#[test]
fn with_a_manifest_go_its_tags_and_no_others() {
    let mut model = model();
    did(&mut model, 10, PutManifest { repository: 0, manifest: 0, tag: Some(0) });
    did(&mut model, 20, PutManifest { repository: 0, manifest: 2, tag: Some(1) });
    did(&mut model, 30, DeleteManifest { repository: 0, manifest: 0 });
    assert_eq!(model.tag(0, 0, 40, 40), BTreeSet::from([None]));
    assert_eq!(model.tag(0, 1, 40, 40), BTreeSet::from([Some(2)]));
    assert_eq!(model.is_listed(0, 40, 40), Presence::Must);
    did(&mut model, 50, DeleteManifest { repository: 0, manifest: 2 });
    assert_eq!(model.is_listed(0, 60, 60), Presence::MustNot);
}

#[test]
fn by_rules_stays_what_has_a_tag_that_stays_and_what_that_needs() {
    let mut model = model();
    did(&mut model, 10, GiveBlob { repository: 1, blob: 0 });
    for (at, manifest, tag) in [(20, 0, None), (30, 1, Some(0)), (40, 2, Some(1))] {
        did(&mut model, at, PutManifest { repository: 1, manifest, tag });
    }
    let (tag, end) = (|model: &Model, tag| model.tag(1, tag, 50, 50), 9 * SECOND);
    assert_eq!(tag(&model, 0), BTreeSet::from([Some(1)]));
    assert_eq!(tag(&model, 1), BTreeSet::from([None, Some(2)]));
    assert_eq!([0, 1, 2].map(|manifest| model.manifest(1, manifest, end, end)), {
        [Presence::Must, Presence::Must, Presence::May]
    });
    assert_eq!(model.blob(1, 0, end, end), Presence::Must);
    let all = Found { tags: vec![Some(1), None], manifests: BTreeSet::from([0, 1, 2]), blobs: BTreeSet::new() };
    assert_eq!(model.left_by_rules(&all), BTreeSet::from([0, 1, 2]));
    let loose = Found { tags: vec![None, Some(2)], ..all };
    assert_eq!(model.left_by_rules(&loose), BTreeSet::new());
}

#[test]
fn a_manifest_is_taken_where_all_is_there_that_it_names() {
    let mut model = model();
    assert_eq!(model.takes(0, 0, 5, 5), Presence::MustNot);
    let under_way = model.begin_at(GiveBlob { repository: 0, blob: 0 }, 10);
    assert_eq!(model.takes(0, 0, 20, 20), Presence::May);
    model.done_at(under_way, 30);
    assert_eq!(model.takes(0, 0, 40, 40), Presence::Must);
    assert_eq!(model.takes(0, 1, 40, 40), Presence::MustNot);
    let refused = model.begin_at(PutManifest { repository: 0, manifest: 0, tag: None }, 50);
    model.refused(refused);
    assert_eq!(model.takes(0, 1, 60, 60), Presence::MustNot);
}

#[test]
fn what_was_found_at_rest_is_so_from_then_on() {
    let mut model = model();
    let lost = model.begin_at(PutManifest { repository: 0, manifest: 0, tag: Some(1) }, 1);
    model.lost(lost);
    let found = Found { tags: vec![None, Some(0)], manifests: BTreeSet::from([0]), blobs: BTreeSet::from([0]) };
    model.settle(0, &found);
    let now = model.now();
    assert_eq!(model.tag(0, 1, now, now), BTreeSet::from([Some(0)]));
    assert_eq!((model.manifest(0, 0, now, now), model.manifest(0, 1, now, now)), (Presence::Must, Presence::MustNot));
    assert!(Presence::May.allows(true) && Presence::May.allows(false));
    assert!(!Presence::Must.allows(false) && !Presence::MustNot.allows(true));
}
