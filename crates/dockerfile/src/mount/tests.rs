use super::*;

fn read(text: &str) -> Result<MountSpec, String> {
    let flag = Word { text: text.to_owned(), span: Span { start: 10, end: 10 + text.len() } };
    let mount = Mount::read(&flag).map_err(|error| error.message)?;
    mount.resolve(|word| Ok(word.text.replace("$x", "X"))).map_err(|error| error.message)
}

#[test]
fn mounts_of_every_kind() {
    let bind = |from: Option<&str>, source: Option<&str>, target: &str, is_writable| MountSpec::Bind {
        from: from.map(str::to_owned),
        source: source.map(str::to_owned),
        target: target.to_owned(),
        is_writable,
    };
    let owner = Owner { mode: Some(0o400), user: Some(1), group: Some(2) };
    for (text, expected) in [
        ("target=/a", bind(None, None, "/a", false)),
        ("type=bind,from=b,src=/c,dst=/$x,rw", bind(Some("b"), Some("/c"), "/X", true)),
        ("destination=/a,readwrite=true,ro=1", bind(None, None, "/a", false)),
        ("\"target=/a,b\",readonly=false", bind(None, None, "/a,b", true)),
        (
            "type=CACHE,id=i,target=/c,sharing=locked,mode=0400,uid=1,gid=2",
            MountSpec::Cache {
                id: Some("i".into()),
                target: "/c".into(),
                sharing: Sharing::Locked,
                from: None,
                source: None,
                owner,
                is_writable: true,
            },
        ),
        ("type=tmpfs,target=/t,size=64m", MountSpec::Tmpfs { target: "/t".into(), size_bytes: Some(64 << 20) }),
        (
            "required,type=secret,target=/a/key,env=KEY",
            MountSpec::Secret {
                id: "key".into(),
                target: Some("/a/key".into()),
                env: Some("KEY".into()),
                is_required: true,
                owner: Owner::default(),
            },
        ),
        (
            "type=ssh",
            MountSpec::Ssh { id: "default".into(), target: None, is_required: false, owner: Owner::default() },
        ),
    ] {
        assert_eq!(read(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    for (text, expected) in [
        ("type=cahce,target=/a", "unsupported mount type \"cahce\" (did you mean cache?)"),
        ("tpye=cache", "unexpected key 'tpye' in 'tpye=cache' (did you mean type?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("from=$x,target=/a", "'from' doesn't support variable expansion, define alias stage instead"),
        ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
        ("target=/a,mode=1", "mode not allowed for \"bind\" type mounts"),
        ("target=/a,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=cache,target=/a,sharing=mine", "unsupported sharing value \"mine\""),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=cache,target=/a,uid=+1", "invalid value +1 for uid"),
        ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
        ("type=cache", "a cache mount needs a target"),
        ("type=tmpfs,target=/a,size=much", "invalid value for size: much"),
        ("target=/a,ro=maybe", "invalid value for ro: maybe"),
        ("\"target=/a", "failed to parse csv mounts: a quote in \"target=/a has no end"),
        ("type=$x", "unsupported mount type \"X\""),
    ] {
        assert_eq!(read(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn faults_are_shown_where_they_stand() {
    let text = "type=cache,target=/a,uid=x";
    let flag = Word { text: text.to_owned(), span: Span { start: 100, end: 100 + text.len() } };
    assert_eq!(Mount::read(&flag).unwrap_err().span, Span { start: 125, end: 126 });
}
