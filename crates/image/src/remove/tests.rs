use std::cell::Cell;
use std::sync::Arc;

use super::*;
use crate::Image;

pub(super) fn id(number: u8) -> ImageId {
    ImageId::new(dozen_model::Digest::from_sha256([number; 32]))
}

/// Images by number, each with its parent's number and its names.
pub(super) fn state(images: &[(u8, Option<u8>, &[&str])]) -> State {
    let mut state = State::default();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    for (number, parent, names) in images {
        let image = Image::new(id(*number), config, 0, parent.map(id)).unwrap();
        state.images.insert(id(*number), Arc::new(image));
        for name in *names {
            state.references.insert(name.parse().unwrap(), id(*number));
        }
    }
    state.name_images();
    state
}

pub(super) fn uses(number: u8, running: bool) -> impl Fn(&ImageId) -> Option<Use> {
    move |asked| (*asked == id(number)).then(|| Use { container_short: "c0ffee".into(), running })
}

/// What is removed in Docker's words, or the message; `force` and `prune` by the flags `f` and `p`.
#[track_caller]
fn check(images: &[(u8, Option<u8>, &[&str])], name: &str, flags: &str, user: Option<(u8, bool)>, want: &str) {
    let state = state(images);
    let asked = Cell::new(0);
    let in_use = |asked_id: &ImageId| {
        asked.set(asked.get() + 1);
        user.and_then(|(number, running)| uses(number, running)(asked_id))
    };
    let got = match plan(&state, name, flags.contains('f'), flags.contains('p'), &in_use) {
        Ok(plan) => {
            let say = |step: &Removal| match step {
                Removal::Untagged(name) => format!("-{name}"),
                Removal::Deleted(id) => format!("x{}", &id[7..9]),
            };
            plan.steps.iter().map(say).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want);
}

#[test]
fn names_and_images_go_as_docker_lets_them() {
    let one: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &["a"])];
    let two: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &["a", "b"])];
    let family: &[(u8, Option<u8>, &[&str])] =
        &[(0x11, None, &[]), (0x22, Some(0x11), &[]), (0x33, Some(0x22), &["c"])];
    check(one, "a", "p", None, "-a:latest x11");
    check(one, "nope", "p", None, "No such image: nope:latest");
    check(two, "a", "p", None, "-a:latest");
    check(
        two,
        "1111",
        "p",
        None,
        "conflict: unable to delete 111111111111 (must be forced) - image is referenced in multiple repositories",
    );
    check(two, "1111", "pf", None, "-a:latest -b:latest x11");
    check(family, "c", "p", None, "-c:latest x33 x22 x11");
    check(family, "c", "", None, "-c:latest x33");
    check(
        family,
        "2222",
        "pf",
        None,
        "conflict: unable to delete 222222222222 (cannot be forced) - image has dependent child images",
    );
}

#[test]
fn images_in_use_stay() {
    let one: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &["a"])];
    let two: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &["a", "b"])];
    let refused = "conflict: unable to remove repository reference \"a\" (must force) - container c0ffee is using its referenced image 111111111111";
    check(one, "a", "p", Some((0x11, false)), refused);
    check(one, "a", "p", Some((0x11, true)), refused);
    check(two, "a", "p", Some((0x11, true)), "-a:latest");
    check(one, "a", "pf", Some((0x11, false)), "-a:latest x11");
    // By force the name of a running container's image goes, the image itself cannot.
    check(one, "a", "pf", Some((0x11, true)), "-a:latest");
    check(
        one,
        "1111",
        "pf",
        Some((0x11, true)),
        "conflict: unable to delete 111111111111 (cannot be forced) - image is being used by running container c0ffee",
    );
    check(
        one,
        "1111",
        "p",
        Some((0x11, false)),
        "conflict: unable to delete 111111111111 (must be forced) - image is being used by stopped container c0ffee",
    );
    let family: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &[]), (0x22, Some(0x11), &["b"])];
    check(family, "b", "p", Some((0x11, false)), "-b:latest x22");
}
