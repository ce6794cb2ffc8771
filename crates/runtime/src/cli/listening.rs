//! Sockets that who starts us has opened for the container (sd_listen_fds(3)): descriptors 3 and up, before those of
//! `--preserve-fds`. The container's process 1 is told that they are its own.

use crate::Spec;

/// How many there are.
pub(super) fn count() -> u32 {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return 0 };
    decide(&count, std::env::var("LISTEN_PID").ok().as_deref(), std::process::id())
}

/// Those meant for another process are not ours to hand on. Whom they are meant for need not be said.
fn decide(count: &str, pid: Option<&str>, own: u32) -> u32 {
    /// More than anyone may have open, and few enough to be counted on from.
    const MOST: u32 = 1 << 20;
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    count.parse().ok().filter(|count| is_ours && *count <= MOST).unwrap_or(0)
}

/// The spec of a container that is told of them.
pub(super) fn tell(spec: &Spec, count: u32) -> Spec {
    let mut spec = spec.clone();
    let Some(process) = spec.process_mut().as_mut() else { return spec };
    let mut environment = process.env().clone().unwrap_or_default();
    environment.retain(|entry| !["LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES="].iter().any(|n| entry.starts_with(n)));
    environment.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    environment.extend(std::env::var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}")));
    process.set_env(Some(environment));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_others_are_not_counted() {
        for (count, pid, expected) in [
            ("2", None, 2),
            ("2", Some("7"), 2),
            ("2", Some("8"), 0),
            ("2", Some(""), 0),
            ("", None, 0),
            ("-1", None, 0),
            ("4000000000", None, 0),
        ] {
            assert_eq!(decide(count, pid, 7), expected, "{count:?} {pid:?}");
        }
    }
}
