use std::collections::BTreeSet;

use dozen_dockerfile::Sharing;

use super::*;
use crate::operation::{Add, Mount, Origin, Script};

fn digest(number: u8) -> Digest {
    Digest::from_sha256([number; 32])
}

fn a_run() -> Run {
    Run {
        arguments: vec!["/bin/sh".into(), "-c".into(), "make".into()],
        script: None,
        environment: vec![("PATH".into(), "/bin".into())],
        proxies: Vec::new(),
        user: String::new(),
        working_directory: "/".into(),
        mounts: Vec::new(),
        network: RunNetwork::Default,
        security: RunSecurity::Sandbox,
    }
}

fn a_copy() -> Copy {
    Copy {
        origin: Origin::Context,
        sources: vec![Source::Path("a".into())],
        destination: "/b/".into(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    }
}

fn key(operation: Operation) -> Digest {
    of(&operation, Below::Layers(&[digest(1)]), &[digest(2)], &Circumstances::default())
}

fn run_with(change: impl Fn(&mut Run)) -> Digest {
    let mut run = a_run();
    change(&mut run);
    key(Operation::Run(run))
}

fn copy_with(change: impl Fn(&mut Copy)) -> Digest {
    let mut copy = a_copy();
    change(&mut copy);
    key(Operation::Copy(copy))
}

fn mounted(spec: MountSpec) -> Digest {
    run_with(|run| run.mounts.push(Mount::Plain(spec.clone())))
}

fn secret(id: &str, target: Option<&str>) -> MountSpec {
    MountSpec::Secret {
        id: id.into(),
        target: target.map(Into::into),
        env: None,
        is_required: false,
        owner: Owner::default(),
    }
}

fn cache(id: &str, sharing: Sharing) -> MountSpec {
    MountSpec::Cache {
        id: Some(id.into()),
        target: "/c".into(),
        sharing,
        from: None,
        source: None,
        owner: Owner::default(),
        is_writable: true,
    }
}

#[test]
fn everything_that_matters_changes_the_key() {
    let bind = |source: Option<&str>, target: &str, is_writable| MountSpec::Bind {
        from: None,
        source: source.map(Into::into),
        target: target.into(),
        is_writable,
    };
    let with = |circumstances: Circumstances| {
        of(&Operation::Run(a_run()), Below::Layers(&[digest(1)]), &[digest(2)], &circumstances)
    };
    let below = |below| of(&Operation::Copy(a_copy()), below, &[digest(2)], &Circumstances::default());
    let contents = |contents: &[Digest]| {
        of(&Operation::Copy(a_copy()), Below::Layers(&[digest(1)]), contents, &Circumstances::default())
    };
    let directory =
        |path: &str, user: &str| key(Operation::MakeDirectory(MakeDirectory { path: path.into(), user: user.into() }));
    let host = |address: Option<&str>| HostEntry { name: "h".into(), address: address.map(|it| it.parse().unwrap()) };
    let add = |checksum: Option<&str>, keep_git_directory, unpack| {
        let add = Add { checksum: checksum.map(Into::into), keep_git_directory, unpack };
        copy_with(|copy| copy.add = Some(add.clone()))
    };
    let script = |content: &str| {
        let script = Script { path: "/s".into(), content: content.into() };
        run_with(|run| run.script = Some(script.clone()))
    };
    let keys = [
        run_with(|_| {}),
        run_with(|run| run.arguments = vec!["/bin/sh".into(), "-c make".into()]),
        run_with(|run| run.environment[0].1 = "/sbin".into()),
        run_with(|run| run.environment.push(("A".into(), String::new()))),
        run_with(|run| run.user = "me".into()),
        run_with(|run| run.working_directory = "/w".into()),
        run_with(|run| run.network = RunNetwork::None),
        run_with(|run| run.network = RunNetwork::Host),
        run_with(|run| run.security = RunSecurity::Insecure),
        script("a"),
        script("b"),
        mounted(bind(None, "/t", false)),
        mounted(bind(Some("s"), "/t", false)),
        mounted(bind(None, "/u", false)),
        mounted(bind(None, "/t", true)),
        mounted(cache("i", Sharing::Shared)),
        mounted(cache("j", Sharing::Shared)),
        mounted(secret("i", None)),
        mounted(secret("j", None)),
        mounted(secret("i", Some("/t"))),
        mounted(MountSpec::Tmpfs { target: "/t".into(), size_bytes: None }),
        mounted(MountSpec::Tmpfs { target: "/t".into(), size_bytes: Some(1) }),
        mounted(MountSpec::Ssh { id: "i".into(), target: None, is_required: false, owner: Owner::default() }),
        with(Circumstances { network: Some("none".into()), ..Circumstances::default() }),
        with(Circumstances { hosts: vec![host(None)], ..Circumstances::default() }),
        with(Circumstances { hosts: vec![host(Some("10.0.0.1"))], ..Circumstances::default() }),
        with(Circumstances { shm_size_bytes: Some(1), ..Circumstances::default() }),
        with(Circumstances {
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            ..Circumstances::default()
        }),
        with(Circumstances { source_date_epoch: Some(0), ..Circumstances::default() }),
        below(Below::Layers(&[digest(1)])),
        below(Below::Layers(&[digest(1), digest(2)])),
        below(Below::Layers(&[])),
        below(Below::Anything),
        contents(&[]),
        contents(&[digest(3)]),
        contents(&[digest(2), digest(3)]),
        contents(&[digest(3), digest(2)]),
        copy_with(|copy| copy.sources = vec![Source::Path("c".into())]),
        copy_with(|copy| copy.sources = vec![Source::Url("a".into())]),
        copy_with(|copy| copy.sources = vec![Source::Git("a".into())]),
        copy_with(|copy| copy.sources = vec![Source::Inline { name: "a".into(), content: String::new() }]),
        copy_with(|copy| copy.sources = vec![Source::Inline { name: "a".into(), content: "b".into() }]),
        copy_with(|copy| copy.destination = "/b".into()),
        copy_with(|copy| copy.owner = Some("1".into())),
        copy_with(|copy| copy.mode = Some(FileMode::Bits(0o644))),
        copy_with(|copy| copy.mode = Some(FileMode::Changes("u+x".into()))),
        copy_with(|copy| copy.link = true),
        copy_with(|copy| copy.parents = true),
        copy_with(|copy| copy.exclude = vec!["a".into()]),
        add(None, false, None),
        add(None, false, Some(false)),
        add(None, true, None),
        add(Some("sha256:1"), false, None),
        directory("/a", ""),
        directory("/a", "u"),
        directory("/b", ""),
    ];
    let all: BTreeSet<&Digest> = keys.iter().collect();
    assert_eq!(all.len(), keys.len());
}

#[test]
fn what_does_not_matter_leaves_the_key() {
    assert_eq!(run_with(|_| {}), run_with(|run| run.proxies = vec![("HTTP_PROXY".into(), "http://me:pw@p".into())]));
    assert_eq!(copy_with(|_| {}), copy_with(|copy| copy.origin = Origin::Stage(3)));
    assert_eq!(mounted(cache("i", Sharing::Shared)), mounted(cache("i", Sharing::Locked)));
    // What a build was told of its RUNs is nothing to a COPY.
    let told = Circumstances { network: Some("host".into()), shm_size_bytes: Some(1), ..Circumstances::default() };
    let copy = Operation::Copy(a_copy());
    let of = |circumstances| of(&copy, Below::Anything, &[], circumstances);
    assert_eq!(of(&told), of(&Circumstances::default()));
    // And the build's own network nothing to a RUN that has another.
    let alone = Run { network: RunNetwork::None, ..a_run() };
    let alone = Operation::Run(alone);
    let of = |network: Option<&str>| {
        let network = network.map(str::to_owned);
        super::of(&alone, Below::Anything, &[], &Circumstances { network, ..Circumstances::default() })
    };
    assert_eq!(of(None), of(Some("host")));
}

/// A key that changes by itself would throw away everybody's cache: another form gets another number.
#[test]
fn keys_stay_what_they_are() {
    assert_eq!(run_with(|_| {}).as_str(), "sha256:bd06174cafab499673f20ff94e3b4af46258a5aa7b28753b88927ad7cb28f6c7");
    assert_eq!(copy_with(|_| {}).as_str(), "sha256:a988fa1d8120a10a344121cedd9650c45d4988c9e50217ced738e8997579dacd");
}
