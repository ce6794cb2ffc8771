//! The driver of a volume: `local` is the only one, and Docker's plugins are not to be found.

use dozen_model::ErrorKind;

use crate::error::ApiError;

/// Whether a volume of this name can be made by that driver; none means `local`. The words are Docker's.
///
/// Of a container that is made the error is to be [`of_container`]'s.
pub(crate) fn check(driver: &str, volume: &str) -> Result<(), ApiError> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    let [driver, volume] = [driver, volume].map(|text| text.chars().take(200).collect::<String>());
    let message = format!("create {volume}: error looking up volume plugin {driver}: plugin {driver:?} not found");
    Err(ApiError::new(ErrorKind::NotFound, message)
        .with_hint("the driver local also mounts NFS, CIFS, tmpfs and disks: -o type=… -o device=… -o o=…"))
}

/// Docker's own client takes "not found" of a create for the image, and would pull it: the request is wrong.
pub(crate) fn of_container(driver: &str, volume: &str) -> Result<(), ApiError> {
    check(driver, volume).map_err(|error| ApiError { kind: ErrorKind::Invalid, ..error })
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_local_is_found() {
        assert_eq!(super::check("", "a"), Ok(()));
        assert_eq!(super::check("local", "a"), Ok(()));
        let error = super::check("rexray", "a").unwrap_err();
        assert_eq!(error.status(), 404);
        assert_eq!(super::of_container("rexray", "a").unwrap_err().status(), 400);
        assert_eq!(error.message, "create a: error looking up volume plugin rexray: plugin \"rexray\" not found");
    }
}
