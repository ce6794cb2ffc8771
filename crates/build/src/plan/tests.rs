use dozen_dockerfile::parse;
use dozen_dockerfile::stages::Base;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::operation::{Copy, Run, Source};

/// What a build was given, and what its images are.
#[derive(Default)]
struct Build {
    given: Given,
    images: Value,
    options: Options,
}

impl Build {
    fn with(arguments: &[(&str, &str)]) -> Self {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { given: Given { arguments, ..Given::default() }, ..Self::default() }
    }

    /// Upon an image `x` with this configuration.
    fn upon(config: Value) -> Self {
        Self { images: json!({ "x": { "config": config, "os": "linux", "architecture": "amd64" } }), ..Self::default() }
    }

    /// The plans of all stages.
    fn plans(&self, source: &str) -> Result<Vec<StagePlan>, Error> {
        let file = parse(source).map_err(|failure| failure.error)?;
        let global = GlobalScope::new(&file, &self.given)?;
        let stages = Stages::new(&file, &global)?;
        let planning = Planning::new(&file, &stages, &global, &self.given);
        let mut plans: Vec<StagePlan> = Vec::new();
        for stage in 0..stages.count() {
            let base = match stages.base_of(stage) {
                Base::Empty => BaseImage::Empty,
                Base::Image(name) => BaseImage::Image(&self.images[name]),
                Base::Stage(base) => BaseImage::Stage(&plans[*base]),
            };
            plans.push(planning.stage(stage, base, &self.options)?);
        }
        Ok(plans)
    }

    #[track_caller]
    fn last(&self, source: &str) -> StagePlan {
        self.plans(source).unwrap().pop().unwrap()
    }
}

fn plan(source: &str) -> StagePlan {
    Build::default().last(source)
}

/// The last entry of the history.
fn said(source: &str) -> String {
    let plan = plan(source);
    plan.steps.last().unwrap().created_by.clone().unwrap_or_default()
}

fn refused(source: &str) -> String {
    Build::default().plans(source).unwrap_err().message
}

#[track_caller]
fn run(plan: &StagePlan) -> Run {
    let run =
        |step: &PlannedStep| if let Some(Operation::Run(run)) = &step.operation { Some(run.clone()) } else { None };
    plan.steps.iter().rev().find_map(run).unwrap()
}

#[track_caller]
fn copy(plan: &StagePlan) -> Copy {
    let copy =
        |step: &PlannedStep| if let Some(Operation::Copy(copy)) = &step.operation { Some(copy.clone()) } else { None };
    plan.steps.iter().rev().find_map(copy).unwrap()
}

#[test]
fn the_history_is_in_the_words_of_docker() {
    for (instruction, expected) in [
        ("RUN echo hi", "RUN /bin/sh -c echo hi # buildkit"),
        ("RUN [\"a\", \"b c\"]", "RUN a b c # buildkit"),
        ("SHELL [\"/bin/bash\", \"-ec\"]\nRUN x", "RUN /bin/bash -ec x # buildkit"),
        ("ARG a=b\nRUN x", "RUN |1 a=b /bin/sh -c x # buildkit"),
        ("ARG a=b c\nARG a=2\nENV c=3\nRUN x", "RUN |3 a=2 c=3 a=2 /bin/sh -c x # buildkit"),
        ("ARG a\nRUN x", "RUN |1 a= /bin/sh -c x # buildkit"),
        ("RUN <<E\na\nb\nE", "RUN /bin/sh -c a\nb\n # buildkit"),
        ("COPY . /app", "COPY . /app # buildkit"),
        ("COPY --chmod=755 --chown=a:b --link a b c/", "COPY --chown=a:b --chmod=755 a b c/ # buildkit"),
        ("COPY --parents --from=y a b", "COPY --parents a b # buildkit"),
        ("COPY a <<E b /\nx\nE", "COPY a b <<E / # buildkit"),
        ("ENV d=e\nADD $d.tar /$d", "ADD e.tar /e # buildkit"),
        ("WORKDIR /x", "WORKDIR /x"),
        ("WORKDIR a\nWORKDIR ../b/", "WORKDIR /b"),
        ("WORKDIR /x//../y/", "WORKDIR /x//../y/"),
        ("ENV A=b \"c d\"='e f'", "ENV A=b c d=e f"),
        ("ENV A b  c", "ENV A=b  c"),
        ("LABEL a=b c=\"d e\"", "LABEL a=b c=d e"),
        ("ARG a b=c", "ARG a b=c"),
        ("CMD python app.py", "CMD [\"/bin/sh\" \"-c\" \"python app.py\"]"),
        ("CMD [\"a\", \"\\\"\"]", "CMD [\"a\" \"\\\"\"]"),
        ("CMD []", "CMD []"),
        ("ENTRYPOINT [\"a\"]", "ENTRYPOINT [\"a\"]"),
        ("EXPOSE 80 53/udp 70-71", "EXPOSE map[53/udp:{} 70/tcp:{} 71/tcp:{} 80/tcp:{}]"),
        (
            "HEALTHCHECK --interval=90s --retries=3 CMD curl -f x",
            "HEALTHCHECK &{[\"CMD-SHELL\" \"curl -f x\"] \"1m30s\" \"0s\" \"0s\" \"0s\" '\\x03'}",
        ),
        ("HEALTHCHECK NONE", "HEALTHCHECK &{[\"NONE\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}"),
        ("SHELL [\"/bin/bash\", \"-c\"]", "SHELL [/bin/bash -c]"),
        ("STOPSIGNAL SIGQUIT", "STOPSIGNAL SIGQUIT"),
        ("ENV u=me\nUSER $u:us", "USER me:us"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("VOLUME [\"/a b\"]", "VOLUME [/a b]"),
        ("MAINTAINER me", "MAINTAINER me"),
        ("ONBUILD RUN x", ""),
    ] {
        assert_eq!(said(&format!("FROM x\n{instruction}")), expected, "{instruction}");
    }
}

#[test]
fn the_configuration_is_what_was_said() {
    for (instruction, key, expected) in [
        ("ENV PATH=/a:$PATH b=1", "Env", json!(["PATH=/a:/bin", "L=1", "b=1"])),
        ("ENV b=1 PATH=/a\nENV b=2 c=$b", "Env", json!(["PATH=/a", "L=1", "b=2", "c=1"])),
        ("ARG a=1", "Env", json!(["PATH=/bin", "L=1"])),
        ("ARG a=1\nENV b=$a", "Env", json!(["PATH=/bin", "L=1", "b=1"])),
        ("CMD a", "Cmd", json!(["/bin/sh", "-c", "a"])),
        ("CMD []", "Cmd", Value::Null),
        ("ENV a=b", "Cmd", json!(["sh"])),
        ("ENTRYPOINT [\"e\"]", "Cmd", Value::Null),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", "Cmd", json!(["c"])),
        ("ENTRYPOINT e", "Entrypoint", json!(["/bin/sh", "-c", "e"])),
        ("SHELL [\"s\"]\nENTRYPOINT e", "Entrypoint", json!(["s", "e"])),
        ("SHELL [\"s\", \"-c\"]", "Shell", json!(["s", "-c"])),
        ("CMD a", "ArgsEscaped", json!(true)),
        ("ENV a=b", "ArgsEscaped", Value::Null),
        ("USER $nobody", "User", Value::Null),
        ("USER a", "User", json!("a")),
        ("WORKDIR b", "WorkingDir", json!("/w/b")),
        ("WORKDIR $none", "WorkingDir", json!("/w")),
        ("WORKDIR /a/../b/", "WorkingDir", json!("/a/../b/")),
        ("EXPOSE 80", "ExposedPorts", json!({ "80/tcp": {}, "1/udp": {} })),
        ("VOLUME a /b", "Volumes", json!({ "a": {}, "/b": {}, "/v": {} })),
        ("LABEL a=2 b=3", "Labels", json!({ "a": "2", "b": "3", "of": "x" })),
        ("STOPSIGNAL 9", "StopSignal", json!("9")),
        (
            "HEALTHCHECK --timeout=1m --start-interval=2s CMD [\"a\", \"b\"]",
            "Healthcheck",
            json!({ "Test": ["CMD", "a", "b"], "Timeout": 60_000_000_000_u64, "StartInterval": 2_000_000_000 }),
        ),
        ("HEALTHCHECK NONE", "Healthcheck", json!({ "Test": ["NONE"] })),
        ("ENV a=b", "Healthcheck", json!({ "Test": ["CMD", "t"], "Interval": 5 })),
        ("ONBUILD RUN $x <<E\na\nE", "OnBuild", json!(["RUN $x <<E\na\nE"])),
    ] {
        let base = json!({
            "Env": ["PATH=/bin", "L=1"], "Cmd": ["sh"], "WorkingDir": "/w/", "ExposedPorts": { "1/udp": {} },
            "Volumes": { "/v": {} }, "Labels": { "of": "x", "a": "1" }, "Healthcheck": { "Test": ["CMD", "t"], "Interval": 5 },
            "Hostname": "left out",
        });
        let plan = Build::upon(base).last(&format!("FROM x\n{instruction}"));
        assert_eq!(plan.configuration.to_value()[key], expected, "{instruction}");
    }
}

#[test]
fn without_a_base_there_is_a_path_and_a_directory() {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let empty = plan("FROM scratch\nRUN x");
    assert_eq!(empty.configuration.to_value(), json!({ "Env": [path], "WorkingDir": "/" }));
    assert_eq!(run(&empty).working_directory, "/");
    let bare = Build::upon(json!({ "Env": ["A=1"] })).last("FROM x\nENV b=${PATH%%:*}\nRUN x");
    assert_eq!(bare.configuration.to_value(), json!({ "Env": ["A=1", path, "b=/usr/local/sbin"] }));
    assert_eq!(run(&bare).working_directory, "/");
}

#[test]
fn what_cannot_be_is_refused_where_it_stands() {
    for (instruction, message) in [
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("EXPOSE web", "invalid containerPort: web"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("VOLUME $none", "VOLUME specified can not be an empty string"),
        ("ENV $none=1", "ENV names can not be blank"),
        ("LABEL $none=1", "LABEL names can not be blank"),
        ("COPY https://a/b /c", "source can't be a URL for COPY"),
        ("COPY git@a:b /c", "source can't be a git ref for COPY"),
        (
            "COPY --chmod=9 a b",
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777, or symbolic",
        ),
        ("COPY <<a/b c\nb\na/b", "the heredoc's name \"a/b\" is no file's name: it has a slash in it"),
        ("ADD --checksum=sha256:1 https://a/b c", "invalid checksum digest format"),
        ("ADD --checksum=sha256:1 a c", "checksum requires HTTP(S) or Git sources"),
        ("ADD --checksum=sha256:1 https://a/b d c/", "checksum can't be specified for multiple sources"),
        ("RUN --mount=type=tmpfs,target=/a/.. x", "invalid mount target \"/\""),
        ("RUN --mount=type=cache,target=../../.. x", "invalid mount target \"/\""),
        ("ARG a=${b:?missing}", "failed to process \"${b:?missing}\": b: missing"),
    ] {
        let source = format!("FROM x\nENV A=1\n{instruction}");
        let error = Build::default().plans(&source).unwrap_err();
        assert_eq!(error.message, message, "{instruction}");
        assert!(error.span.start >= 15 && error.span.end <= source.len() && error.has_place(), "{error:?}");
    }
}

#[test]
fn a_run_has_what_the_image_and_the_arguments_say() {
    let mut build = Build::with(&[("a", "given"), ("HTTP_PROXY", "p"), ("no_proxy", "q"), ("FTP_PROXY", "")]);
    build.images = json!({ "x": { "config": { "Env": ["PATH=/bin", "E=1"], "User": "u", "WorkingDir": "/w" } } });
    let plan = build.last("ARG g=2\nFROM x\nARG a=1$E g none E\nARG no_proxy=r\nENV E=3\nRUN --network=none x");
    // Defaults alone: what the caller gave is its own affair.
    assert_eq!(plan.steps[0].created_by.as_deref(), Some("ARG a=11 g none E"));
    let run = run(&plan);
    let pairs = |pairs: &[(String, String)]| -> Vec<String> {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(pairs(&run.environment), ["PATH=/bin", "E=3", "a=given", "g=2", "no_proxy=q"]);
    assert_eq!(pairs(&run.proxies), ["HTTP_PROXY=p", "NO_PROXY=q", "http_proxy=p"]);
    assert_eq!((run.user.as_str(), run.working_directory.as_str()), ("u", "/w"));
    assert_eq!(run.arguments, ["/bin/sh", "-c", "x"]);
}

#[test]
fn heredocs_are_scripts_or_the_shells() {
    let of = |line: &str| run(&plan(&format!("FROM x\n{line}")));
    let script = of("RUN <<E\nset -e\necho $x\nE");
    assert_eq!((script.arguments[2].as_str(), script.script), ("set -e\necho $x\n", None));
    assert_eq!(of("RUN <<-'E'\n\ta\n\t b\n\tE").arguments[2], "a\n b\n");
    let own = of("RUN <<E\n#!/usr/bin/env python3\nprint()\nE");
    assert_eq!(own.arguments, ["/bin/sh", "-c", "/dev/pipes/E"]);
    let script = own.script.unwrap();
    assert_eq!((script.path.as_str(), script.content.as_str()), ("/dev/pipes/E", "#!/usr/bin/env python3\nprint()\n"));
    let shell = of("RUN cat <<A - <<-\"B\"\n1\nA\n\t2\n\tB");
    assert_eq!(shell.arguments[2], "cat <<A - <<-\"B\"\n1\nA\n\t2\nB");
    assert_eq!(plan("FROM x\nRUN <<E\n\n a\nb\nE").steps[0].text, "RUN <<E (a...)");
    assert_eq!(
        refused("FROM x\nRUN <<../E\n#!a\n../E"),
        "the heredoc's name \"../E\" is no file's name: it has a slash in it"
    );
}

#[test]
fn mounts_know_their_origin_and_their_target() {
    let source = "FROM x AS one\nFROM x\nWORKDIR /w\nARG d=d\nRUN --mount=target=a,rw --mount=from=One,src=s,target=/b \
                  --mount=from=scratch,target=/c --mount=from=img:1,target=$d --mount=type=cache,target=c/../e \
                  --mount=type=cache,target=f,from=one,id=i --mount=type=secret,id=k,target=t --mount=type=ssh y";
    let mounts = run(&plan(source)).mounts;
    let shown: Vec<String> = mounts.iter().map(|it| format!("{:?} {:?}", target_of(it), it.origin())).collect();
    assert_eq!(
        shown,
        [
            "\"/w/a\" Some(Context)",
            "\"/b\" Some(Stage(0))",
            "\"/c\" Some(Empty)",
            "\"/w/d\" Some(Image(\"img:1\"))",
            "\"/w/e /w/e\" None",
            "\"/w/f i\" Some(Stage(0))",
            "\"/w/t\" None",
            "\"\" None",
        ]
    );
    let plan = plan(source);
    assert_eq!((plan.origins(), plan.images()), (BTreeSet::from([0]), BTreeSet::from(["img:1"])));
}

fn target_of(mount: &Mount) -> String {
    use dozen_dockerfile::MountSpec;
    match mount.spec() {
        MountSpec::Bind { target, .. } | MountSpec::Tmpfs { target, .. } => target.clone(),
        MountSpec::Cache { target, id, .. } => format!("{target} {}", id.clone().unwrap()),
        MountSpec::Secret { target, .. } | MountSpec::Ssh { target, .. } => target.clone().unwrap_or_default(),
    }
}

#[test]
fn copies_know_what_they_take_and_where_it_goes() {
    let of = |line: &str| copy(&plan(&format!("FROM x AS one\nFROM x\nWORKDIR /w\nENV d=dir\n{line}")));
    for (line, to) in [
        ("COPY a .", "/w/"),
        ("COPY a ./", "/w/"),
        ("COPY a $none", "/w/"),
        ("COPY a $d", "/w/dir"),
        ("COPY a $d/", "/w/dir/"),
        ("COPY a /", "/"),
        ("COPY a /x/../y/", "/y/"),
    ] {
        assert_eq!(of(line).destination, to, "{line}");
    }
    let inline = |name: &str, content: &str| Source::Inline { name: name.into(), content: content.into() };
    let path = |path: &str| Source::Path(path.into());
    for (line, sources) in [
        ("COPY [\"a b\", \"$d\", \"c\"]", vec![path("a b"), path("dir")]),
        ("COPY github.com/a/b c", vec![path("github.com/a/b")]),
        ("COPY $none c", vec![path("/")]),
        ("COPY <<A b <<'B' c/\n$d\nA\n$d\nB", vec![path("b"), inline("A", "dir\n"), inline("B", "$d\n")]),
        ("COPY <<-A c\n\t$d \\$d \"\n\tA", vec![inline("A", "dir $d \"\n")]),
        (
            "ADD https://a/b?c https://h/d.git#v1:x e /f/",
            vec![Source::Url("https://a/b?c".into()), Source::Git("https://h/d.git#v1:x".into()), path("e")],
        ),
    ] {
        assert_eq!(of(line).sources, sources, "{line}");
    }
    for (line, origin) in [
        ("COPY a b", Origin::Context),
        ("COPY --from=0 a b", Origin::Stage(0)),
        ("COPY --from=ONE a b", Origin::Stage(0)),
        ("COPY --from=nginx:1 a b", Origin::Image("nginx:1".into())),
        ("COPY --from=scratch a b", Origin::Empty),
    ] {
        assert_eq!(of(line).origin, origin, "{line}");
    }
    let all = of("ADD --chown=$d:1 --chmod=$none --link --exclude=*.o --exclude=$d --keep-git-dir --unpack=false a b");
    assert_eq!((all.owner.as_deref(), all.mode, all.link), (Some("dir:1"), None, false));
    assert_eq!(all.exclude, ["*.o", "$d"]);
    for (flags, link) in [("", true), ("--chown=1:2", true), ("--chown=1", true), ("--chown=1:me", false)] {
        assert_eq!(of(&format!("COPY --link {flags} a b")).link, link, "{flags}");
    }
    let add = all.add.unwrap();
    assert_eq!((add.checksum, add.keep_git_directory, add.unpack), (None, true, Some(false)));
}

#[test]
fn passwords_in_addresses_are_neither_in_the_history_nor_shown() {
    let file = "FROM scratch\nARG token=hunter2\nADD https://me:$token@a.example/f https://me:pw@b.example/x.git#v1 /\n\
                RUN [\"git\", \"clone\", \"https://hunter2@a.example/x.git\"]\n";
    let plan = Build::default().plans(file).unwrap().remove(0);
    let add = &plan.steps[1];
    assert_eq!(
        add.created_by.as_deref(),
        Some("ADD https://xxxxx@a.example/f https://xxxxx@b.example/x.git#v1 / # buildkit")
    );
    assert_eq!(add.text, "ADD https://xxxxx@a.example/f https://xxxxx@b.example/x.git#v1 /");
    assert_eq!(plan.steps[2].text, "RUN [\"git\", \"clone\", \"https://xxxxx@a.example/x.git\"]");
    // What is fetched is what was said.
    let Some(Operation::Copy(copy)) = &add.operation else { panic!("{add:?}") };
    assert_eq!(copy.sources[0], Source::Url("https://me:hunter2@a.example/f".into()));
}

#[test]
fn triggers_of_the_base_come_first_and_are_gone() {
    let base =
        json!({ "OnBuild": ["ARG v=1", "COPY --from=one . /src", "RUN make $v", "CMD [\"c\"]"], "Cmd": ["old"] });
    let build = Build::upon(base);
    let source = "FROM y AS one\nFROM x\nENTRYPOINT [\"e\"]\nRUN $v";
    let plan = build.last(source);
    let texts: Vec<&str> = plan.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "ONBUILD ARG v=1",
            "ONBUILD COPY --from=one . /src",
            "ONBUILD RUN make 1",
            "ONBUILD CMD [\"c\"]",
            "ENTRYPOINT [\"e\"]",
            "RUN 1"
        ]
    );
    assert_eq!(plan.steps[2].created_by.as_deref(), Some("RUN |1 v=1 /bin/sh -c make $v # buildkit"));
    assert_eq!(&source[plan.steps[1].span.start..plan.steps[1].span.end], "FROM x");
    assert_eq!((plan.origins(), plan.configuration.on_build.len()), (BTreeSet::from([0]), 0));
    assert_eq!(plan.configuration.command, ["c"]);

    let plans =
        build.plans("FROM y\nONBUILD RUN a\nFROM y AS b\nONBUILD RUN b\nFROM b\nFROM b\nONBUILD USER c").unwrap();
    let counts: Vec<_> = plans.iter().map(|plan| (plan.steps.len(), plan.configuration.on_build.clone())).collect();
    let on_build = |trigger: &str| vec![trigger.to_owned()];
    assert_eq!(counts, [(1, on_build("RUN a")), (1, on_build("RUN b")), (1, vec![]), (2, on_build("USER c"))]);

    for (trigger, message) in [
        ("FROM y", "FROM isn't allowed as an ONBUILD trigger"),
        ("MAINTAINER me", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("RUN a\nRUN b", "an ONBUILD trigger is more than one instruction"),
        ("RNU a", "unknown instruction: RNU (did you mean RUN?)"),
        ("COPY --from=two a b", "cannot copy from stage \"two\", it needs to be defined before current stage \"1\""),
        ("USER ${a:?}", "failed to process \"${a:?}\": a: is not allowed to be unset"),
    ] {
        let source = "FROM y\nFROM x\nFROM y AS two";
        let error = Build::upon(json!({ "OnBuild": [trigger] })).plans(source).unwrap_err();
        assert_eq!((error.message.as_str(), &source[error.span.start..error.span.end]), (message, "FROM x"));
    }
}

#[test]
fn a_stage_goes_on_where_its_base_ended() {
    let source = "FROM x AS a\nARG v=1\nENV e=$v\nWORKDIR /w\nUSER u\nSHELL [\"s\"]\nCMD [\"c\"]\n\
                  FROM a\nENTRYPOINT [\"e\"]\nRUN $v$e";
    let plan = plan(source);
    let run = run(&plan);
    assert_eq!(run.arguments, ["s", "$v$e"]);
    assert_eq!(plan.steps[1].text, "RUN 11");
    // The stage itself has declared nothing, and its own ENTRYPOINT is not for the command of its base.
    assert_eq!(plan.steps[1].created_by.as_deref(), Some("RUN s $v$e # buildkit"));
    assert!(plan.configuration.command.is_empty());
    assert!(run.environment.contains(&("v".into(), "1".into())));
    assert_eq!((run.user.as_str(), run.working_directory.as_str()), ("u", "/w"));
}

#[test]
fn labels_and_platform_of_the_caller_win() {
    let mut build = Build::upon(json!({}));
    build.options.labels = BTreeMap::from([("a".into(), "caller".into())]);
    build.images["x"]["variant"] = json!("v2");
    let plan = build.last("FROM x\nLABEL a=file b=file");
    assert_eq!(plan.configuration.to_value()["Labels"], json!({ "a": "caller", "b": "file" }));
    assert_eq!(image_configuration(None, &plan, &[], None)["variant"], "v2");
    let arm = Platform { os: "linux".into(), architecture: "arm".into(), variant: "v7".into() };
    build.options.platform = Some(arm.clone());
    let document = image_configuration(None, &build.last("FROM x"), &[], None);
    assert_eq!((&document["architecture"], &document["variant"]), (&json!("arm"), &json!("v7")));
    build.options.platform = None;
    build.given.target_platform = arm;
    assert_eq!(image_configuration(None, &build.last("FROM scratch"), &[], None)["architecture"], "arm");
    assert_eq!(image_configuration(None, &build.last("FROM x"), &[], None)["architecture"], "amd64");
}

#[test]
fn arguments_that_nobody_wants_are_named() {
    let build = Build::with(&[
        ("z", "1"),
        ("a", "1"),
        ("global", "1"),
        ("of_stage", "1"),
        ("TARGETARCH", "x"),
        ("https_proxy", "x"),
        ("BUILDKIT_INLINE_CACHE", "1"),
        ("SOURCE_DATE_EPOCH", "0"),
    ]);
    let warning = |source: &str| {
        let file = parse(source).unwrap();
        let global = GlobalScope::new(&file, &build.given).unwrap();
        unused_arguments(&build.plans(source).unwrap(), &global, &build.given)
    };
    let warned = warning("ARG global\nFROM y\nARG of_stage=1\nFROM y");
    assert_eq!(warned.as_deref(), Some("[Warning] One or more build-args [a z] were not consumed"));
    assert_eq!(warning("ARG global\nFROM y\nARG of_stage=1 a\nFROM y\nONBUILD RUN x\nARG z"), None);
}

#[test]
fn the_date_of_a_build_is_a_number_of_seconds() {
    let date = |text: &str| build_date(&Build::with(&[("SOURCE_DATE_EPOCH", text)]).given).map_err(|it| it.message);
    assert_eq!((date("1700000000"), date("-1"), date("")), (Ok(Some(1_700_000_000)), Ok(Some(-1)), Ok(None)));
    assert_eq!(build_date(&Given::default()).unwrap(), None);
    for text in ["x", "1.5", "99999999999999"] {
        assert_eq!(date(text), Err(format!("invalid SOURCE_DATE_EPOCH: {text}")));
    }
}

#[test]
fn nothing_grows_without_end() {
    let too_large = "the file becomes too large when it is expanded";
    let double = "ENV a=0123456789abcdef\n".to_owned() + &"ENV a=$a$a\n".repeat(14);
    assert_eq!(refused(&format!("FROM scratch\n{double}VOLUME {}", "$a ".repeat(1000))), too_large);
    assert_eq!(refused(&format!("FROM scratch\n{double}{}", "RUN x\n".repeat(1000))), too_large);
    assert_eq!(refused(&format!("FROM scratch\n{double}{}", "LABEL $a=$a\n".repeat(1000))), too_large);
    assert_eq!(refused(&format!("FROM scratch\n{}", "EXPOSE 1-65535\n".repeat(100))), too_large);
    let ranges: Vec<String> = (1..9000).map(|port| format!("{port}-65535")).collect();
    assert_eq!(plan(&format!("FROM scratch\nEXPOSE {}", ranges.join(" "))).configuration.exposed_ports.len(), 65535);
    let stages: String = (1..1000).map(|stage| format!("FROM s{} AS s{stage}\n", stage - 1)).collect();
    let labels: String = (0..2000).map(|label| format!("LABEL label{label}=0123456789\n")).collect();
    assert_eq!(refused(&format!("FROM scratch AS s0\n{labels}{stages}")), too_large);
    let triggers = "ONBUILD RUN echo\n".repeat(1000);
    let upon: String = (0..999).map(|_| "FROM s0\n").collect();
    assert_eq!(refused(&format!("FROM scratch AS s0\n{triggers}{upon}")), too_large);
}

const DAY: &str = "2026-11-22T10:00:00Z";

fn time(seconds: i64) -> jiff::Timestamp {
    DAY.parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
}

fn digest(number: u8) -> dozen_model::Digest {
    dozen_model::Digest::from_sha256([number; 32])
}

/// `(created - DAY, empty_layer, created_by)` of each entry.
fn history(document: &Value) -> Vec<(Option<i64>, bool, String)> {
    let entry = |entry: &Value| {
        let created = entry["created"].as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap());
        let since = created.map(|it| it.as_second() - time(0).as_second());
        let said = entry["created_by"].as_str().unwrap_or_default().to_owned();
        (since, entry["empty_layer"] == json!(true), said)
    };
    document["history"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn an_image_has_the_layers_and_the_times_of_its_steps() {
    let base = json!({
        "architecture": "amd64", "os": "linux", "variant": "v3", "created": "2020-01-01T00:00:00Z", "author": "them",
        "config": { "Cmd": ["sh"] }, "container": "old",
        "rootfs": { "type": "layers", "diff_ids": [digest(1)] },
        "history": [
            { "created": time(-9), "created_by": "ADD" }, { "created": time(-8), "created_by": "CMD", "empty_layer": true },
        ],
    });
    let build = Build { images: json!({ "x": base }), ..Build::default() };
    let plan = build.last("FROM x\nENV a=b\nWORKDIR /w\nRUN true\nRUN x\nCMD [\"y\"]\nONBUILD RUN z\nUSER me");
    let mut done = vec![Done::default(); plan.steps.len()];
    done[1] = Done { layer: Some(digest(2)), created: Some(time(1)) };
    done[2] = Done { layer: None, created: Some(time(2)) };
    done[3] = Done { layer: Some(digest(3)), created: Some(time(3)) };
    let document = image_configuration(Some(&base), &plan, &done, None);
    let entry = |seconds: i64, is_empty: bool, said: &str| (Some(seconds), is_empty, said.to_owned());
    assert_eq!(
        history(&document),
        [
            entry(-9, false, "ADD"),
            entry(-8, true, "CMD"),
            entry(1, true, "ENV a=b"),
            entry(1, false, "WORKDIR /w"),
            entry(2, true, "RUN /bin/sh -c true # buildkit"),
            entry(3, false, "RUN /bin/sh -c x # buildkit"),
            entry(3, true, "CMD [\"y\"]"),
            entry(3, true, "USER me"),
        ]
    );
    assert_eq!(document["rootfs"], json!({ "type": "layers", "diff_ids": [digest(1), digest(2), digest(3)] }));
    assert_eq!((&document["created"], &document["author"]), (&json!(time(3)), &json!("them")));
    assert_eq!((&document["variant"], document.get("container")), (&json!("v3"), None));
    assert_eq!(document.to_string(), image_configuration(Some(&base), &plan, &done, None).to_string());

    let dated = image_configuration(Some(&base), &plan, &done, Some(time(7)));
    assert!(history(&dated)[2..].iter().all(|(created, ..)| *created == Some(7)));
    assert_eq!(dated["created"], json!(time(7)));

    // Nothing but words: the time is that of the layer below, so the same build gives the same image.
    let said = image_configuration(Some(&base), &build.last("FROM x\nENV a=b"), &[], None);
    assert_eq!((history(&said)[2].0, &said["created"]), (Some(-8), &json!(time(-8))));
    let nothing = image_configuration(None, &build.last("FROM scratch\nENV a=b"), &[], None);
    assert_eq!((history(&nothing)[0].0, nothing.get("created")), (None, None));
}

#[test]
fn a_history_that_does_not_fit_its_layers_is_made_to() {
    let of = |entries: Value| {
        let base = json!({ "rootfs": { "diff_ids": [digest(1), digest(2)] }, "history": entries });
        let plan = plan("FROM scratch\nRUN x");
        let done = [Done { layer: Some(digest(3)), created: Some(time(0)) }];
        let document = image_configuration(Some(&base), &plan, &done, None);
        history(&document).into_iter().map(|(_, is_empty, said)| (is_empty, said)).collect::<Vec<_>>()
    };
    let entry = |is_empty: bool, said: &str| (is_empty, said.to_owned());
    let run = entry(false, "RUN /bin/sh -c x # buildkit");
    assert_eq!(of(Value::Null), [entry(false, ""), entry(false, ""), run.clone()]);
    assert_eq!(of(json!([{ "created_by": "a" }])), [entry(false, "a"), entry(false, ""), run.clone()]);
    let three = json!([{ "created_by": "a" }, { "created_by": "b" }, { "created_by": "c" }]);
    assert_eq!(of(three), [entry(true, "a"), entry(false, "b"), entry(false, "c"), run]);
}

/// A configuration with anything in its places.
fn configuration() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!("a")),
        Just(json!(1)),
        Just(json!(["A=1", "PATH=/b", "PATH=/c", "x", 1])),
        Just(json!({ "a": {}, "b": "c" })),
        Just(json!(["RUN a <<E\nb\nE", "ARG a=1", "COPY . b"])),
    ];
    let keys = [
        "Env",
        "Cmd",
        "Entrypoint",
        "Labels",
        "ExposedPorts",
        "Volumes",
        "OnBuild",
        "Shell",
        "Healthcheck",
        "User",
        "WorkingDir",
        "StopSignal",
    ];
    proptest::collection::btree_map(prop::sample::select(keys.to_vec()), value, 0..6)
        .prop_map(|config| json!({ "config": config, "os": "linux" }))
}

proptest! {
    #[test]
    fn no_base_image_panics(base in configuration()) {
        let build = Build { images: json!({ "x": base }), ..Build::default() };
        if let Ok(plan) = build.plans("FROM x\nENV a=b\nRUN c") {
            image_configuration(Some(&base), &plan[0], &[], None);
        }
    }
}
