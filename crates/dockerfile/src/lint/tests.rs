use super::*;

fn report(source: &str, arguments: &[(&str, &str)], target: &str, ignore: &str) -> Report {
    let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let given = Given { arguments, target_stage: target.to_owned(), ..Given::default() };
    check(source, &Options { given, ignore: IgnoreFile::parse(ignore).unwrap() })
}

fn shown(report: &Report) -> Vec<(usize, &'static str, String)> {
    report.findings.iter().map(|it| (*it.lines.start(), it.rule.name(), it.detail.clone())).collect()
}

/// Line, rule and detail of all that is found, and that there is no error.
#[track_caller]
fn finds(source: &str, expected: &[(usize, &str, &str)]) {
    let report = report(source, &[], "", "");
    let expected: Vec<_> = expected.iter().map(|(line, rule, detail)| (*line, *rule, (*detail).to_owned())).collect();
    assert_eq!((shown(&report), report.error), (expected, None), "{source}");
}

/// The rules that speak on one line each, in words that do not matter here.
#[track_caller]
fn speaks(source: &str, expected: &[(usize, &str)]) {
    let report = report(source, &[], "", "");
    let found: Vec<_> = shown(&report).into_iter().map(|(line, rule, _)| (line, rule)).collect();
    assert_eq!((found, report.error), (expected.to_vec(), None), "{source}");
}

#[test]
fn stage_name_casing() {
    finds("FROM a AS Build", &[(1, "StageNameCasing", "Stage name 'Build' should be lowercase")]);
    speaks("FROM a AS build-2_x.y", &[]);
}

#[test]
fn from_as_casing() {
    finds("FROM a as b", &[(1, "FromAsCasing", "'as' and 'FROM' keywords' casing do not match")]);
    finds("from a AS b", &[(1, "FromAsCasing", "'AS' and 'from' keywords' casing do not match")]);
    speaks("FROM a As b", &[(1, "FromAsCasing")]);
    speaks("from a as b", &[]);
    speaks("From a as b\nFROM c", &[(1, "ConsistentInstructionCasing")]);
}

#[test]
fn no_empty_continuation() {
    finds("FROM a\nCOPY b \\\n\n  c\nCOPY d \\\n# no\n  e\n", &[(4, "NoEmptyContinuation", "Empty continuation line")]);
    speaks("FROM a\nRUN b \\\n\n c <<EOF\nd\nEOF\n", &[(4, "NoEmptyContinuation")]);
}

#[test]
fn consistent_instruction_casing() {
    let detail = "Command 'copy' should match the case of the command majority (uppercase)";
    finds("FROM a\ncopy b c\nCOPY d e", &[(2, "ConsistentInstructionCasing", detail)]);
    finds("FROM a\ncopy b c", &[(2, "ConsistentInstructionCasing", detail)]);
    let detail = "Command 'FROM' should match the case of the command majority (lowercase)";
    finds("FROM a\nrun b\nrun c", &[(1, "ConsistentInstructionCasing", detail)]);
    speaks("from a\ncopy b c", &[]);
    speaks("ARG x=y\nFROM a\nRuN b", &[(3, "ConsistentInstructionCasing")]);
}

#[test]
fn duplicate_stage_name() {
    let detail = "Duplicate stage name \"b\", stage names should be unique";
    finds("FROM a AS b\nFROM a AS b\n", &[(2, "DuplicateStageName", detail)]);
    speaks("FROM a AS b\nFROM a AS B\nFROM a AS c", &[(2, "StageNameCasing"), (2, "DuplicateStageName")]);
}

#[test]
fn reserved_stage_name() {
    finds(
        "FROM a AS scratch\nFROM a AS context\nFROM scratch AS b",
        &[
            (1, "ReservedStageName", "Stage name should not use the same name as reserved stage \"scratch\""),
            (2, "ReservedStageName", "Stage name should not use the same name as reserved stage \"context\""),
        ],
    );
}

#[test]
fn json_args_recommended() {
    let detail = "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    finds("FROM a\nCMD b c", &[(2, "JSONArgsRecommended", detail)]);
    speaks("FROM a\nENTRYPOINT b\nRUN c", &[(2, "JSONArgsRecommended")]);
    speaks("FROM a\nCMD [\"b\"]\nENTRYPOINT []\nHEALTHCHECK CMD c", &[]);
    speaks("FROM a AS b\nSHELL [\"c\"]\nFROM b\nCMD d", &[]);
    speaks("FROM a AS b\nONBUILD SHELL [\"c\"]\nFROM b\nCMD d", &[]);
}

#[test]
fn maintainer_deprecated() {
    let detail = "Maintainer instruction is deprecated in favor of using label";
    finds("FROM a\nMAINTAINER b <c@d>", &[(2, "MaintainerDeprecated", detail)]);
}

#[test]
fn undefined_arg_in_from() {
    finds("FROM a${b}", &[(1, "UndefinedArgInFrom", "FROM argument 'b' is not declared")]);
    let both = report("FROM a:${b}", &[], "", "");
    let rules: Vec<_> = shown(&both).into_iter().map(|it| it.1).collect();
    assert_eq!(rules, ["UndefinedArgInFrom", "InvalidDefaultArgInFrom"]);
    assert!(both.error.unwrap().message.starts_with("failed to parse stage name \"a:\": invalid reference format"));
    let detail = "FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)";
    finds("ARG MY_ARCH=arm64\nFROM --platform=linux/${MYARCH:-$MY_ARCH} a", &[(2, "UndefinedArgInFrom", detail)]);
    let detail = "FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)";
    finds("FROM --platform=${BULIDPLATFORM:-$BUILDPLATFORM} a", &[(1, "UndefinedArgInFrom", detail)]);
    speaks("ARG d\nFROM a${d} AS b\nFROM --platform=$BUILDPLATFORM a", &[]);
}

#[test]
fn workdir_relative_path() {
    let detail = "Relative workdir \"app/\" can have unexpected results if the base image changes";
    finds("FROM a\nWORKDIR app/\nWORKDIR b", &[(2, "WorkdirRelativePath", detail)]);
    speaks("FROM a AS b\nARG d=/x\nWORKDIR $d\nFROM b\nWORKDIR c\n", &[]);
    speaks("FROM a AS b\nWORKDIR /x\nFROM a\nWORKDIR c\n", &[(4, "WorkdirRelativePath")]);
}

#[test]
fn undefined_var() {
    finds("FROM a\nCOPY $foo .\nARG foo=b\nRUN $c", &[(2, "UndefinedVar", "Usage of undefined variable '$foo'")]);
    let detail = "Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)";
    finds("FROM a\nARG DIR_ASSETS=b\nCOPY ${DIR_ASSET}x $DIR_ASSET .", &[(3, "UndefinedVar", detail)]);
    let detail = "Usage of undefined variable '$PAHT' (did you mean $PATH?)";
    finds("FROM a\nENV PATH=$PAHT:/x", &[(2, "UndefinedVar", detail)]);
    // It may be the image's; but not if there is no image, nor if somebody declares it elsewhere.
    speaks("FROM a\nENV PATH=$JAVA_HOME/bin:$PATH", &[]);
    speaks("FROM scratch\nENV a=$JAVA_HOME:$PATH", &[(2, "UndefinedVar")]);
    speaks("ARG VERSION=1\nFROM a\nENV x=$VERSION", &[(3, "UndefinedVar")]);
    speaks("FROM a AS b\nARG VERSION=1\nFROM a\nENV x=$VERSION", &[(4, "UndefinedVar")]);
    speaks("FROM a AS b\nARG foo\nFROM b\nCOPY x$foo .\nFROM a\nCOPY x$foo .", &[(6, "UndefinedVar")]);
    speaks("FROM a\nRUN echo $foo\nCMD [\"$foo\"]\nLABEL a='$foo' b=\\$foo", &[]);
    speaks("FROM a\nCOPY <<EOF <<'X' /b/\n$foo\nEOF\n$bar\nX\n", &[(2, "UndefinedVar")]);
    let given = report("FROM a\nARG b=$foo", &[("b", "1")], "", "");
    assert_eq!((shown(&given), given.error), (Vec::new(), None), "a default that nobody needs");
    speaks("FROM a AS b\nONBUILD ARG foo=1\nFROM b\nCOPY $foo .", &[]);
}

#[test]
fn multiple_instructions_disallowed() {
    let detail =
        "Multiple CMD instructions should not be used in the same stage because only the last one will be used";
    finds("FROM a\nCMD [\"b\"]\nRUN c\nCMD [\"d\"]", &[(2, "MultipleInstructionsDisallowed", detail)]);
    speaks(
        "FROM a\nENTRYPOINT []\nENTRYPOINT []\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nHEALTHCHECK NONE",
        &[
            (2, "MultipleInstructionsDisallowed"),
            (4, "MultipleInstructionsDisallowed"),
            (5, "MultipleInstructionsDisallowed"),
        ],
    );
    speaks("FROM a AS b\nCMD []\nFROM b\nCMD []", &[]);
}

#[test]
fn legacy_key_value_format() {
    finds(
        "FROM a\nENV b c\nLABEL d e=f\nENV g=h i=j",
        &[
            (2, "LegacyKeyValueFormat", "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format"),
            (
                3,
                "LegacyKeyValueFormat",
                "\"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
            ),
        ],
    );
}

#[test]
fn redundant_target_platform() {
    let detail =
        "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior";
    finds("FROM --platform=${TARGETPLATFORM} a", &[(1, "RedundantTargetPlatform", detail)]);
    speaks("FROM --platform=$TARGETPLATFORM a", &[(1, "RedundantTargetPlatform")]);
}

#[test]
fn secrets_used_in_arg_or_env() {
    let detail = "Do not use ARG or ENV instructions for sensitive data (ENV \"SUPER_Secret\")";
    finds("FROM a\nENV SUPER_Secret=b", &[(2, "SecretsUsedInArgOrEnv", detail)]);
    speaks(
        "FROM a\nARG auth=1 b=2 git_key\nENV password=1",
        &[(2, "SecretsUsedInArgOrEnv"), (2, "SecretsUsedInArgOrEnv"), (3, "SecretsUsedInArgOrEnv")],
    );
    speaks("FROM a\nARG PUBLIC_KEY public_token\nENV sunflower=1 monkey=2 keys=3", &[]);
}

#[test]
fn invalid_default_arg_in_from() {
    let source = "ARG VERSION\nFROM busybox:$VERSION";
    let detail = "Default value for ARG busybox:$VERSION results in empty or invalid base image name";
    let with_version = report(source, &[("VERSION", "1")], "", "");
    assert_eq!(shown(&with_version), [(2, "InvalidDefaultArgInFrom", detail.to_owned())]);
    assert_eq!(with_version.error, None);
    let without = report("ARG IMAGE\nFROM $IMAGE", &[], "", "");
    assert_eq!(
        (shown(&without).len(), without.error.unwrap().message.as_str()),
        (1, "base name ($IMAGE) should not be blank")
    );
    speaks("ARG V=1 X\nFROM busybox:${V}${X}\nFROM scratch AS Stage-1\nFROM Stage-$V", &[(3, "StageNameCasing")]);
}

#[test]
fn from_platform_flag_const_disallowed() {
    let detail = "FROM --platform flag should not use constant value \"linux/amd64\"";
    finds("FROM --platform=linux/amd64 a", &[(1, "FromPlatformFlagConstDisallowed", detail)]);
    speaks(
        "FROM --platform=linux/amd64 a AS build_amd64\nFROM --platform=linux/arm64 a AS linux\nFROM --platform=$BUILDPLATFORM a",
        &[],
    );
}

#[test]
fn copy_ignored_file() {
    let look = |source: &str, ignore: &str| {
        shown(&report(&format!("# check=experimental=CopyIgnoredFile\nFROM a\n{source}"), &[], "", ignore))
    };
    let one = |detail: &str| {
        vec![(3, "CopyIgnoredFile", format!("Attempting to {detail} that is excluded by .dockerignore"))]
    };
    assert_eq!(look("COPY ./b/c /x", "b"), one("Copy file \"./b/c\""));
    assert_eq!(look("ADD b /x", "b"), one("Add file \"b\""));
    for quiet in ["COPY --from=c b /x", "ADD https://b /x", "COPY b* /x", "COPY . /x", "COPY <<b /x\nb\n"] {
        assert_eq!(look(quiet, "*"), [], "{quiet}");
    }
    assert_eq!(look("COPY b /x", "b\n!b/c"), []);
    assert_eq!(shown(&report("FROM a\nCOPY b /x", &[], "", "b")), [], "it has to be asked for");
}

#[test]
fn invalid_definition_description() {
    let source = "# check=experimental=InvalidDefinitionDescription\n# bar this is\nARG foo=bar\n# BasE that is\nFROM a AS base\n\
                  # bad\nARG version=latest\n# bad\nARG foo=baz bar=qux\n";
    let details = [
        (3, "Comment for ARG should follow the format: `# foo <description>`"),
        (5, "Comment for FROM should follow the format: `# base <description>`"),
        (7, "Comment for ARG should follow the format: `# version <description>`"),
        (9, "Comment for ARG should follow the format: `# <arg_key> <description>`"),
    ];
    finds(source, &details.map(|(line, detail)| (line, "InvalidDefinitionDescription", detail)));
    speaks(
        "# check=experimental=all\nARG foo\n\n# base is it\nFROM a AS base\n# not\n#\nARG foo\n# x\n# bar is it\nARG foo bar\n# y\n\nARG z\n# w\nRUN v",
        &[],
    );
}

#[test]
fn expose_rules() {
    let detail = "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase";
    finds("FROM a\nEXPOSE 80/TcP 81", &[(2, "ExposeProtoCasing", detail)]);
    let detail = "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'";
    finds("FROM a\nEXPOSE 127.0.0.1:80:80", &[(2, "ExposeInvalidFormat", detail)]);
    speaks("FROM a\nARG p='80 81-90/udp'\nEXPOSE $p 5000/sctp", &[]);
}

#[test]
fn what_cannot_be_built_is_an_error() {
    for (source, message) in [
        ("FROM a\nEXPOSE x", "invalid containerPort: x"),
        ("FROM a\nEXPOSE 90-80", "invalid containerPort: 90-80"),
        ("FROM a\nEXPOSE 65536", "invalid containerPort: 65536"),
        ("FROM a\nEXPOSE 80/icmp", "invalid proto: icmp"),
        ("FROM a\nADD --checksum=sha256:0 b /c", "checksum requires HTTP(S) or Git sources"),
        ("FROM a\nADD --checksum=sha256:0 https://b https://c /d/", "checksum can't be specified for multiple sources"),
        ("FROM a\nCOPY https://b/c /d", "source can't be a URL for COPY"),
        ("FROM a\nCOPY git@b:c /d", "source can't be a git ref for COPY"),
        (
            "FROM a\nARG m=64a\nCOPY --chmod=$m b /c",
            "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777, or symbolic",
        ),
        (
            &format!("FROM a\nENV a={}\n{}", "x".repeat(1000), "ENV a=$a$a\n".repeat(20)),
            "the variables of the stage take more than 512 KiB",
        ),
        (
            &format!("ARG a={}\n{}FROM a", "x".repeat(1000), "ARG a=$a$a\n".repeat(20)),
            "the global arguments take more than 512 KiB",
        ),
        (
            &format!("FROM a\nENV a={}\n{}", "x".repeat(400_000), "LABEL b=$a\n".repeat(100)),
            "the file becomes too large when it is expanded",
        ),
        (&format!("FROM a\n{}", "ONBUILD USER b\n".repeat(1001)), "there are more than 1000 ONBUILDs in a stage"),
        (&"FROM a\n".repeat(1001), "there are more than 1000 stages"),
        (
            &format!("FROM a\nENV {}", (0..5000).map(|n| format!("v{n}=1 ")).collect::<String>()),
            "the stage has more than 4096 variables",
        ),
        ("FROM a\nSTOPSIGNAL x", "invalid signal: x"),
        ("FROM a\nARG x\nRUN --mount=type=$x,target=/a b", "unsupported mount type \"\""),
        ("FROM a\nENV x=${y:?no}", "failed to process \"${y:?no}\": y: no"),
        (
            "FROM a AS b\nCOPY --from=c d e\nFROM f AS c",
            "cannot copy from stage \"c\", it needs to be defined before current stage \"b\"",
        ),
        ("# check=skpi=all\nFROM a", "invalid check option \"skpi=all\""),
        ("# syntax=mine/own\nFROM a", "the Dockerfile frontend \"mine/own\" is not built in"),
        ("ARG a", "dockerfile contains no stages to build"),
        ("", "the Dockerfile cannot be empty"),
        ("# a", "file with no instructions"),
    ] {
        assert_eq!(report(source, &[], "", "").error.unwrap().message, message, "{source}");
    }
    assert_eq!(
        report("FROM a", &[("BUILDKIT_SYNTAX", "x/y")], "", "").error.unwrap().message,
        "the Dockerfile frontend \"x/y\" is not built in"
    );
}

#[test]
fn what_stands_before_an_error_is_told() {
    let report = report("FROM a AS Bad\nMAINTAINER b\nBADCMD\n", &[], "", "");
    let rules: Vec<_> = shown(&report).into_iter().map(|(line, rule, _)| (line, rule)).collect();
    assert_eq!(rules, [(1, "StageNameCasing"), (2, "MaintainerDeprecated")]);
    let error = report.error.unwrap();
    assert_eq!(error.to_string(), "dockerfile parse error on line 3: unknown instruction: BADCMD");
}

#[test]
fn a_target_leaves_other_stages_in_peace() {
    let source = "FROM a AS one\nENV k v\nFROM one AS two\nFROM a AS three\nENV k v\nEXPOSE x";
    let lines = |target: &str| {
        let report = report(source, &[], target, "");
        (shown(&report).into_iter().map(|it| it.0).collect::<Vec<_>>(), report.error.map(|error| error.message))
    };
    assert_eq!(lines("two"), (vec![2], None));
    assert_eq!(lines("three"), (vec![5], Some("invalid containerPort: x".to_owned())));
    assert_eq!(lines("").0, [2, 5]);
    assert_eq!(lines("tow").1.unwrap(), "target stage \"tow\" could not be found (did you mean two?)");
}

#[test]
fn the_directive_chooses() {
    let source = "FROM a as b\ncopy c d\nCMD e";
    let rules = |directive: &str, arguments: &[(&str, &str)]| {
        let report = report(&format!("{directive}\n{source}"), arguments, "", "");
        let names: Vec<_> = shown(&report).into_iter().map(|it| it.1).collect();
        (names.join(" "), report.error.map(|error| error.message))
    };
    let all = "FromAsCasing ConsistentInstructionCasing JSONArgsRecommended";
    assert_eq!(rules("#", &[]), (all.to_owned(), None));
    assert_eq!(rules("# check=skip=all;error=true", &[]), (String::new(), None));
    let failed = "lint violation found for rules: FromAsCasing, JSONArgsRecommended";
    let expected = ("FromAsCasing JSONArgsRecommended".to_owned(), Some(failed.to_owned()));
    assert_eq!(rules("#check=skip=ConsistentInstructionCasing;error=true", &[]), expected);
    assert_eq!(rules("#check=error=true", &[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]), (String::new(), None));
}
