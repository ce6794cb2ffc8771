//! Which boot of the machine this is: a run of another one has ended, however it seems to stand, and what was written in
//! another one without a sync may not be there.

/// random(4), `boot_id`: a new one with every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// `None` where the kernel does not say; then it may be any.
pub fn id() -> Option<String> {
    let text = std::fs::read_to_string(BOOT_ID).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Whether the machine has gone down since a run of that boot was started. What is not known has not happened.
pub fn is_over(of_run: Option<&String>, present: Option<&String>) -> bool {
    matches!((of_run, present), (Some(then), Some(now)) if then != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_boot_is_another() {
        let [one, other] = ["one", "other"].map(str::to_owned);
        for (of_run, present, expected) in [
            (Some(&one), Some(&one), false),
            (Some(&one), Some(&other), true),
            (None, Some(&other), false),
            (Some(&one), None, false),
        ] {
            assert_eq!(is_over(of_run, present), expected, "{of_run:?} {present:?}");
        }
        assert_eq!(id(), id());
        assert!(id().is_some_and(|id| id.len() == 36));
    }
}
