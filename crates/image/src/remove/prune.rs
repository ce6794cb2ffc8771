//! `image prune`: whether an image goes is decided in the moment in which it goes. Between a listing and a removal a name may
//! have been given to another image, and a container may have come.

use dozen_model::ImageId;

use super::{InUse, Plan, Removal, conflict};
use crate::state::State;
use crate::store::ImageStore;
use crate::{Image, ImageError};

impl ImageStore {
    /// Removes an image with all the names that it has now, if it may go as it is now and no container stands on it; what it
    /// was made from and has no name goes with it. `None`: it stays.
    ///
    /// `may_go` and `in_use` are called with the store's change lock held and must not call back.
    pub fn prune(
        &self,
        id: &ImageId,
        may_go: &dyn Fn(&Image) -> bool,
        in_use: InUse<'_>,
    ) -> Result<Option<Vec<Removal>>, ImageError> {
        let inner = &self.0;
        let _change = inner.lock_change();
        let plan = plan(&inner.read_state(), id, may_go, in_use)?;
        plan.map(|plan| inner.carry_out(plan, in_use)).transpose()
    }
}

/// One that others were made from, who stay, loses its names alone, as with Docker (moby, daemon/images/image_prune.go).
fn plan(
    state: &State,
    id: &ImageId,
    may_go: &dyn Fn(&Image) -> bool,
    in_use: InUse<'_>,
) -> Result<Option<Plan>, ImageError> {
    let Some(image) = state.images.get(id) else { return Ok(None) };
    if !may_go(image) || in_use(id).is_some() {
        return Ok(None);
    }
    if image.references.is_empty() && conflict(state, id, &Default::default(), false, in_use).is_some() {
        return Ok(None);
    }
    let mut plan = Plan::default();
    image.references.iter().chain(&image.repo_digests).for_each(|name| plan.untag(name));
    plan.delete_line(state, Some((id.clone(), Default::default(), false, true)), true, in_use)?;
    Ok(Some(plan))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{id, state, uses};
    use super::*;

    /// What goes of image `number`, as [`super::super::tests`] writes it, if those may go that `may_go` takes.
    #[track_caller]
    fn check(
        images: &[(u8, Option<u8>, &[&str])],
        number: u8,
        may_go: &dyn Fn(&Image) -> bool,
        user: Option<u8>,
        want: Option<&str>,
    ) {
        let in_use = |asked: &ImageId| user.and_then(|number| uses(number, false)(asked));
        let got = plan(&state(images), &id(number), may_go, &in_use).unwrap();
        let say = |step: &Removal| match step {
            Removal::Untagged(name) => format!("-{name}"),
            Removal::Deleted(id) => format!("x{}", &id[7..9]),
        };
        let got = got.map(|plan| plan.steps.iter().map(say).collect::<Vec<_>>().join(" "));
        assert_eq!(got.as_deref(), want);
    }

    #[test]
    fn an_image_goes_with_the_names_that_it_has_now() {
        let any = |_: &Image| true;
        let dangling = |image: &Image| image.references.is_empty();
        // It was listed as `a`, which is another's since.
        let moved: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &[]), (0x22, None, &["a"])];
        check(moved, 0x11, &any, None, Some("x11"));
        check(moved, 0x33, &any, None, None);
        // It was listed without a name.
        check(&[(0x11, None, &["b"])], 0x11, &dangling, None, None);
        check(&[(0x11, None, &["a", "b"])], 0x11, &any, None, Some("-a:latest -b:latest x11"));
        // A container has come: none of its names goes.
        check(&[(0x11, None, &["a", "b"])], 0x11, &any, Some(0x11), None);
    }

    #[test]
    fn what_others_were_made_from_stays_for_them() {
        let any = |_: &Image| true;
        let family: &[(u8, Option<u8>, &[&str])] =
            &[(0x11, None, &[]), (0x22, Some(0x11), &["b"]), (0x33, Some(0x22), &["c"])];
        check(family, 0x11, &any, None, None);
        check(family, 0x22, &any, None, Some("-b:latest"));
        check(family, 0x33, &any, None, Some("-c:latest x33"));
        let unnamed: &[(u8, Option<u8>, &[&str])] = &[(0x11, None, &[]), (0x22, Some(0x11), &["b"])];
        check(unnamed, 0x22, &any, None, Some("-b:latest x22 x11"));
        check(unnamed, 0x22, &any, Some(0x11), Some("-b:latest x22"));
    }
}
