//! Docker's words that dozen knows and does not act on yet. They are refused by name, so that nobody takes a feature
//! that is missing for a slip of the pen.

/// Docker's verbs without those that are built, with their groups: `build`, `image prune`.
const VERBS: &[&str] = &[
    "buildx bake",
    "buildx create",
    "buildx dial-stdio",
    "buildx history",
    "buildx imagetools",
    "buildx inspect",
    "buildx ls",
    "buildx rm",
    "buildx stop",
    "buildx use",
    "buildx version",
    "checkpoint",
    "compose",
    "config",
    "node",
    "plugin",
    "secret",
    "service",
    "stack",
    "swarm",
    "trust inspect",
    "trust key load",
    "trust revoke",
    "trust sign",
    "trust signer",
    "scan",
    "scout",
    "init",
    "bake",
    "model",
    "mcp",
    "volume update",
];

/// Docker's flags of `run` and `create` without those that are built.
const RUN_FLAGS: &[&str] = &[
    "--cpu-count",
    "--cpu-percent",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--disable-content-trust",
    "--io-maxbandwidth",
    "--io-maxiops",
    "--isolation",
    "--kernel-memory",
    "--link",
    "--runtime",
    "--storage-opt",
    "--use-api-socket",
];

/// Flags of other verbs.
const OTHER_FLAGS: &[(&str, &[&str])] = &[
    ("start", &["--checkpoint", "--checkpoint-dir"]),
    ("images", &["--tree"]),
    ("rmi", &["--platform"]),
    ("push", &["--disable-content-trust"]),
    (
        "build",
        &[
            "--annotation",
            "--builder",
            "--disable-content-trust",
            "--isolation",
            "--policy",
            "--resource",
            "--security-opt",
            "--squash",
        ],
    ),
    ("update", &["--cpu-rt-period", "--cpu-rt-runtime", "--kernel-memory", "--restart"]),
    ("rm", &["--link", "-l"]),
    ("volume ls", &["--cluster"]),
    (
        "volume create",
        &[
            "--availability",
            "--group",
            "--limit-bytes",
            "--required-bytes",
            "--scope",
            "--secret",
            "--sharing",
            "--topology-preferred",
            "--topology-required",
            "--type",
        ],
    ),
    ("", &["--config", "--log-level", "-l"]),
];

/// Docker has this verb, and dozen will have it.
pub fn is_verb(path: &str) -> bool {
    VERBS.contains(&path)
}

/// Docker has this flag on this verb (`""` for the flags before any verb), and dozen will have it.
pub fn is_flag(verb: &str, flag: &str) -> bool {
    let verb = canonical(verb);
    if matches!(verb, "run" | "create") && RUN_FLAGS.contains(&flag) {
        return true;
    }
    OTHER_FLAGS.iter().any(|(of, flags)| *of == verb && flags.contains(&flag))
}

/// `container run` and `run` are one verb, as are `image ls` and `images`.
fn canonical(verb: &str) -> &str {
    match verb {
        "image ls" | "image list" => "images",
        "image rm" | "image remove" => "rmi",
        "volume list" => "volume ls",
        "builder build" | "buildx build" => "build",
        _ => verb.strip_prefix("container ").or_else(|| verb.strip_prefix("image ")).unwrap_or(verb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_built_is_refused() {
        let command = crate::command();
        for path in VERBS {
            let mut words = path.split(' ');
            let found = words.try_fold(&command, |command, word| command.find_subcommand(word));
            assert!(found.is_none() || path.is_empty(), "{path}");
        }
        for verb in ["run", "create", "build"] {
            let built = command.find_subcommand(verb).unwrap();
            for arg in built.get_arguments() {
                let long = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
                let short = arg.get_short().map(|short| format!("-{short}")).unwrap_or_default();
                assert!(!is_flag(verb, &long) && !is_flag(verb, &short), "{verb} {long} {short}");
            }
        }
    }
}
