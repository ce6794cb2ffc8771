//! Templates, what they make of one document, and what is wrong with the wrong ones.

use std::rc::Rc;

use proptest::prelude::*;

use super::*;

fn document() -> Value {
    Value::from_json(
        r#"{"Id":"abc","Name":"/web","State":{"Running":true,"Pid":42,"ExitCode":0},
            "Config":{"Env":["A=1","B=2"],"Labels":{"com.example.a":"x","plain":"y"},"Cmd":null},
            "Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]},"Size":1.5,"Empty":[]}"#,
    )
    .unwrap()
}

fn render(template: &str) -> Result<String, String> {
    Template::parse(template).and_then(|parsed| parsed.render(&document())).map_err(|error| error.to_string())
}

#[test]
fn templates_render_as_gos_do() {
    for (template, output) in [
        ("plain", "plain"),
        ("{{.Id}}", "abc"),
        ("{{ .State.Pid }}!", "42!"),
        ("{{.State.Running}}", "true"),
        ("{{.Size}}", "1.5"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[com.example.a:x plain:y]"),
        ("{{.Config.Labels.plain}}", "y"),
        ("{{.Config.Labels.missing}}", "<no value>"),
        ("{{index .Config.Labels \"com.example.a\"}}", "x"),
        ("{{index .Config.Labels \"missing\"}}", ""),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{index .Config.Env 1}}", "B=2"),
        ("{{json .State}}", r#"{"Running":true,"Pid":42,"ExitCode":0}"#),
        ("{{.State | json}}", r#"{"Running":true,"Pid":42,"ExitCode":0}"#),
        ("{{json .Config.Cmd}}", "null"),
        ("{{.Config.Cmd}}", "[]"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.ExitCode}}bad{{else if .Empty}}e{{else}}good{{end}}", "good"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{with .State}}{{.Pid}}{{end}}", "42"),
        ("{{with .Empty}}x{{else}}{{.Id}}{{end}}", "abc"),
        ("{{range .Config.Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
        ("{{range $i, $e := .Config.Env}}{{$i}}={{$e}};{{end}}", "0=A=1;1=B=2;"),
        ("{{range $k, $v := .Ports}}{{$k}}->{{(index $v 0).HostPort}}{{end}}", "80/tcp->8080"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ("{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}", "B=2"),
        ("{{range .Config.Env}}{{$.Id}}{{end}}", "abcabc"),
        ("{{$x := .Id}}{{if true}}{{$x = \"changed\"}}{{end}}{{$x}}", "changed"),
        ("a {{- .Id -}} b", "aabcb"),
        ("a{{/* talk */}}b {{- /* talk */ -}} c", "abc"),
        ("{{\"a\\tb\\u00e9\"}}", "a\tb\u{e9}"),
        ("{{`raw\\t`}}{{'a'}}", "raw\\t97"),
        (
            "{{printf \"%s-%05d-%-4s|%q|%.2f|%t|%x|%%\" .Id 42 \"ab\" \"c\" .Size true 255}}",
            "abc-00042-ab  |\"c\"|1.50|true|ff|%",
        ),
        ("{{printf \"%s\" 1}}{{printf \"%d\"}}", "%!s(int=1)%!d(MISSING)"),
        ("{{println 1 \"a\"}}", "1 a\n"),
        ("{{print 1 2 \"a\" \"b\"}}", "1 2ab"),
        ("{{join .Config.Env \",\"}}", "A=1,B=2"),
        ("{{range split \"a:b\" \":\"}}<{{.}}>{{end}}", "<a><b>"),
        ("{{.Id | upper | printf \"%s!\"}}", "ABC!"),
        ("{{title \"hello world\"}} {{lower \"ABC\"}}", "Hello World abc"),
        ("{{pad .Id 1 2}}|{{truncate .Id 2}}", " abc  |ab"),
        ("{{len .Config.Env}} {{len .Id}}", "2 3"),
        ("{{slice .Id 1}} {{slice .Id 0 2}}", "bc ab"),
        ("{{eq .State.Pid 42}} {{eq 1 2 3 1}} {{ne \"a\" \"b\"}} {{lt 1 2}} {{ge 1 2}}", "true true true true false"),
        ("{{and true \"x\"}} {{or \"\" \"y\"}} {{not true}}", "x y false"),
        ("{{and false (index .Config.Env 9)}}", "false"),
        ("{{ .Id }}{{ \"{{\" }}", "abc{{"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(output), "{template}");
    }
}

/// What Docker's client prints, which has types where the API leaves fields out or says null.
#[test]
fn fields_have_gos_names_and_types() {
    let document = Value::from_json(
        r#"{"Server":{"ApiVersion":"1.51","Os":"linux"},
            "Event":{"status":"start","id":"abc","from":"img","Type":"container","Actor":{"ID":"abc"},"scope":"local","time":17,"timeNano":170},
            "Volume":{"Type":"volume","Actor":{"ID":"v"},"scope":"local","time":18},
            "Container":{"Id":"c","RestartCount":0,"State":{"Running":true},"ExecIDs":null,
                "Mounts":[{"Type":"bind","Source":"/s","Destination":"/d"}],
                "NetworkSettings":{"Ports":{"80/tcp":null,"90/tcp":[{"HostIp":"::","HostPort":"90"}]}},
                "Config":{"Env":["A=1"],"Cmd":null,"Labels":null,"Volumes":null,"ExposedPorts":{"80/tcp":{}}},
                "HostConfig":{"ShmSize":5,"Dns":[],"Binds":null,"PidsLimit":null}},
            "Labels":{"plain":"p","Up":"u","up":"v"},"Twins":{"UUp":1,"UuP":2},"Other":null}"#,
    )
    .unwrap();
    let render = |template: &str| Template::parse(template).and_then(|parsed| parsed.render(&document));
    for (template, output) in [
        ("{{.Server.APIVersion}} {{.Server.OS}} {{.Server.GitCommit}}{{.Server.Experimental}}", "1.51 linux false"),
        (
            "{{with .Event}}{{.Type}} {{.Status}} {{.ID}} {{.Time}} {{.TimeNano}} {{.From}} {{.Scope}}{{end}}",
            "container start abc 17 170 img local",
        ),
        ("{{with .Volume}}{{.Type}} {{.Status}}|{{.ID}}|{{.From}}{{end}}", "volume ||"),
        ("{{.Container.ID}}{{.Container.HostConfig.DNS}}", "c[]"),
        ("{{range .Container.Mounts}}{{.Name}}|{{.Source}}|{{.Driver}}{{end}}", "|/s|"),
        ("{{(index .Container.NetworkSettings.Ports \"90/tcp\" 0).HostIP}}", "::"),
        ("{{.Container.NetworkSettings.Ports}}", "map[80/tcp:[] 90/tcp:[{:: 90}]]"),
        (
            "{{with .Container.Config}}{{.Cmd}}{{.Entrypoint}}{{.Labels}}{{.Volumes}}{{.ExposedPorts}}{{json .ExposedPorts}}{{end}}",
            "[][]map[]map[]map[80/tcp:{}]{\"80/tcp\":{}}",
        ),
        ("{{with .Container.Config}}{{.User}}{{.StopSignal}}{{.Healthcheck}}{{.StopTimeout}}{{end}}", "<nil><nil>"),
        ("{{json .Container.Config.Entrypoint}} {{json .Container.Config.User}}", "null \"\""),
        ("{{index .Container.Config.Labels \"x\"}}{{.Container.Config.Labels.x}}", "<no value>"),
        ("{{range .Container.Config.Cmd}}x{{else}}none{{end}} {{len .Container.Config.Volumes}}", "none 0"),
        ("{{join .Container.Config.Cmd \" \"}}|{{join .Other \" \"}}|{{slice .Container.Config.Cmd 0}}", "||[]"),
        ("{{printf \"%v %s\" .Container.Config.Cmd .Container.Config.Labels}}", "[] map[]"),
        (
            "{{if .Container.Config.Labels}}x{{end}}{{.Container.HostConfig.Binds}}{{.Container.HostConfig.PidsLimit}}",
            "[]<nil>",
        ),
        ("{{.Container.State.Health}} {{.Container.ExecIDs}} {{.Container.SizeRw}}", "<nil> [] <nil>"),
        ("{{.Labels.Up}} {{.Labels.up}} {{.Other}}", "u v <no value>"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(output), "{template}");
    }
    for (template, words) in [
        ("{{.Twins.UUP}}", "map has no entry for key \"UUP\""),
        ("{{.Container.Config.Name}}", "map has no entry for key \"Name\""),
        ("{{.Container.State.Health.Status}}", "nil pointer evaluating"),
        ("{{index .Container.Config.Cmd 0}}", "index out of range: 0"),
    ] {
        let error = render(template).unwrap_err().to_string();
        assert!(error.contains(words), "{template}: {error}");
    }
}

#[test]
fn wrong_templates_are_refused_with_gos_words() {
    for (template, words) in [
        ("{{", "template: :1: unclosed action"),
        ("{{.Id", "template: :1: unclosed action"),
        ("a\n{{end}}", "template: :2: unexpected {{end}}"),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{foo .Id}}", "template: :1: function \"foo\" not defined"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{(.Id}}", "template: :1: unclosed left paren"),
        ("{{.Id)}}", "template: :1: unexpected right paren"),
        ("{{\"a}}", "template: :1: unterminated quoted string"),
        ("{{/* a }}", "template: :1: unclosed comment"),
        ("{{.Id | }}", "template: :1: missing value after pipe in command"),
        ("{{.Id | 1}}", "template: :1: non executable command in pipeline"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{define \"x\"}}{{end}}", "template: :1: {{define}} is not built yet"),
        ("{{.Nothing}}", "template: :1:2: executing \"\" at <.Nothing>: map has no entry for key \"Nothing\""),
        ("{{.Id.More}}", "template: :1:2: executing \"\" at <.Id.More>: can't evaluate field More in type string"),
        (
            "{{.Config.Cmd.X}}",
            "template: :1:2: executing \"\" at <.Config.Cmd.X>: can't evaluate field X in type slice",
        ),
        (
            "{{index .Config.Env 9}}",
            "template: :1:2: executing \"\" at <index>: error calling index: index out of range: 9",
        ),
        (
            "{{eq 1 \"a\"}}",
            "template: :1:2: executing \"\" at <eq>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{lower 1}}",
            "template: :1:2: executing \"\" at <lower>: error calling lower: wrong type for value; expected string; got int",
        ),
        ("{{.Id 1}}", "template: :1:2: executing \"\" at <.Id>: Id is not a method but has arguments"),
    ] {
        assert_eq!(render(template).unwrap_err(), words, "{template}");
    }
}

#[test]
fn rows_have_columns_and_labels() {
    let row = Value::Row(Rc::new(Row {
        columns: vec![("Names", "web".to_owned()), ("ID", "abc".to_owned())],
        labels: Some(vec![("a.b".to_owned(), "x".to_owned())]),
    }));
    let render = |template: &str| Template::parse(template).unwrap().render(&row).map_err(|error| error.to_string());
    assert_eq!(render("{{.ID}} {{.Label \"a.b\"}}{{.Label \"none\"}}").as_deref(), Ok("abc x"));
    assert_eq!(render("{{json .}}").as_deref(), Ok(r#"{"ID":"abc","Names":"web"}"#));
    assert!(render("{{.Nope}}").unwrap_err().contains("can't evaluate field Nope"));
}

#[test]
fn deep_nesting_is_refused() {
    for template in [format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000)), "{{if 1}}".repeat(5000)] {
        assert!(render(&template).unwrap_err().contains("nested too deeply"));
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC{0,60}") {
        let _ = render(&text);
    }

    #[test]
    fn anything_like_a_template_parses_or_is_refused(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "{{", "}}", "{{-", " -}}", " ", ".", ".Id", ".State.Pid", "$", "$x", ":=", "=", "|", "(", ")", "if ", "else",
                "end", "range ", "with ", "index ", "eq ", "printf ", "\"%5d\"", "\"", "`", "'", "1", "-1", "0x", "1e", "1.5e-3",
                "/*", "*/", ",", "break", "slice ", "é", "\\", "len ", "\n",
            ]),
            0..24,
        ),
    ) {
        let _ = render(&parts.concat());
    }
}
