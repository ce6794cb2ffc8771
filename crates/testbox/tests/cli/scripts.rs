//! What scripts written for Docker rely on, beyond the verbs: where files go, names of fields, small print.

use std::os::unix::fs::FileTypeExt;

use dozen_testbox::{docker_program, dozen_program, next_second, until};

use crate::{Cli, Program, for_both};

for_both!(
    an_archive_goes_where_it_may,
    commits_know_variables,
    images_that_were_renamed,
    a_start_that_fails,
    old_words
);

fn an_archive_goes_where_it_may(program: Program) {
    program.with(|cli| {
        // A device of the test's own: what goes wrong here must not take the host's away.
        let at = |name: &str| cli.machine.directory().join(name).to_str().unwrap().to_owned();
        let (device, pipe, file) = (at("null"), at("pipe"), at("saved.tar"));
        cli.machine.run("mknod", &[&device, "c", "1", "3"]).expect(0);
        cli.run(&["save", "-o", &device, "busybox"]).refuses(1, &["failed to save image: ", "device"]);
        let kind = std::fs::metadata(&device).unwrap().file_type();
        assert!(kind.is_char_device(), "{kind:?}");
        cli.run(&["save", "-o", &at("no/file"), "busybox"]).refuses(1, &["invalid output path", "no"]);
        std::fs::write(&file, "old").unwrap();
        cli.text(&["save", "-o", &file, "busybox"]);
        let saved = std::fs::read(&file).unwrap();
        if program == Program::Dozen {
            // Docker's client refuses pipes, or puts a file in their place; older ones learn late of a directory.
            cli.run(&["save", "-o", &at(""), "busybox"]).refuses(1, &["cannot write to a directory"]);
            cli.machine.run("mkfifo", &[&pipe]).expect(0);
            let line = format!("cat {pipe} & {} save -o {pipe} busybox >&2 && wait $!", cli.program.display());
            let said = cli.machine.command("sh").args(["-c", &line]).output().unwrap();
            assert!(said.status.success() && said.stdout == saved, "{said:?}");
            assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
        }
        let parts = std::fs::read_dir(cli.machine.directory()).unwrap().flatten();
        assert!(!parts.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".part")));
    });
}

fn commits_know_variables(program: Program) {
    program.with(|cli| {
        cli.run(&["run", "--name", "maker", "-e", "WHO=me", "busybox", "true"]).expect(0);
        let changes = [
            "ENV PATH=/venv/bin:$PATH",
            "LABEL who=${WHO:-nobody} literal='$WHO'",
            "CMD [\"echo $WHO\"]",
            "ENTRYPOINT [\"sh\", \"-c\"]",
        ];
        let line: Vec<&str> = changes.iter().flat_map(|change| ["-c", change]).collect();
        cli.text(&[&["commit"], &line[..], &["maker", "product"]].concat());
        assert_eq!(cli.text(&["run", "--rm", "product"]), "me\n");
        let path = cli.text(&["run", "--rm", "product", "echo $PATH"]);
        assert!(path.starts_with("/venv/bin:/") && path.contains(":/bin"), "{path}");
        let labels = "{{index .Config.Labels \"who\"}} {{index .Config.Labels \"literal\"}}";
        assert_eq!(cli.inspect("product", labels), "me $WHO");
        cli.run(&["commit", "-c", "ENV A=${WHO#m}", "maker"]).refuses(1, &["${WHO#…} is not built yet"]);
    });
}

fn images_that_were_renamed(program: Program) {
    program.with(|cli| {
        cli.background("parent", &[], "sleep 1000");
        cli.text(&["commit", "parent", "child:1"]);
        cli.text(&["run", "-d", "--name", "offspring", "child:1", "sleep", "1000"]);
        let listed = |ancestor: &str| {
            let filter = format!("ancestor={ancestor}");
            cli.text(&["ps", "--filter", &filter, "--format", "{{.Names}}:{{.Image}}"])
        };
        assert_eq!(listed("busybox"), "offspring:child:1\nparent:busybox\n");
        assert_eq!(listed("child:1"), "offspring:child:1\n");
        let id = cli.inspect("child:1", "{{.Id}}");
        cli.text(&["tag", "child:1", "grandchild"]);
        cli.text(&["tag", "busybox", "child:1"]);
        // The name means another image now: that one's containers are asked for, and the old one's go by its id.
        let short = id.strip_prefix("sha256:").unwrap().get(..12).unwrap();
        assert_eq!(listed("child:1"), format!("offspring:{short}\nparent:busybox\n"));
        assert_eq!(listed("grandchild"), format!("offspring:{short}\n"));
        assert_eq!(listed("nothing"), "");
        let images = |filter: &str| cli.text(&["images", "-q", "--filter", filter]).lines().count();
        assert_eq!((images("until=24h"), images("until=2099-01-01"), images("until=2001-01-01T10")), (2, 3, 0));
        cli.run(&["images", "--filter", "until=soon"]).refuses(1, &["until=soon"]);
    });
}

fn a_start_that_fails(program: Program) {
    program.with(|cli| {
        let done = cli.run(&["run", "-d", "--name", "broken", "busybox", "no-such-program"]).expect(127);
        assert!(done.err.contains("executable file not found"), "{done:?}");
        assert_eq!(done.out.trim(), cli.inspect("broken", "{{.Id}}"));
        let done = cli.run(&["run", "-d", "--rm", "busybox", "no-such-program"]).expect(127);
        assert_eq!(done.out.trim().len(), 64, "{done:?}");
        until("it has removed itself", || (cli.text(&["ps", "-aq"]).lines().count() == 1).then_some(()));
    });
}

fn old_words(program: Program) {
    program.with(|cli| {
        let neutral = "--restart no --cgroupns private --ipc private --userns host --security-opt apparmor=unconfined \
                       --security-opt label=disable --mount type=tmpfs,dst=/t,consistency=cached";
        let neutral: Vec<&str> = neutral.split_whitespace().collect();
        assert_eq!(cli.say(&neutral, "echo hello"), "hello\n");
        for refused in ["--runtime=runc", "--storage-opt=size=1g", "--security-opt=apparmor=mine"] {
            cli.run(&["run", refused, "busybox", "true"]).refuses(125, &["not built yet"]);
        }
        assert_eq!(cli.text(&["volume", "create", "--name", "data"]), "data\n");
        assert_eq!(cli.text(&["help", "volume", "create"]), cli.text(&["volume", "create", "--help"]));
        cli.run(&["help", "nothing"]).refuses(1, &["unknown help topic: nothing"]);
    });
}

/// What the two print, word for word. Only what Docker's client has printed in the same way for years.
#[test]
fn templates_print_what_dockers_client_prints() {
    Program::Dozen.with(|dozen| {
        let docker = Cli { machine: dozen.machine, program: docker_program() };
        assert_eq!(dozen.program, dozen_program());
        dozen.background("web", &["-p", "8080:80", "--expose", "90", "-l", "a=b", "-v", "/tmp:/t"], "sleep 1000");
        dozen.text(&["volume", "create", "data"]);
        let same = |line: &[&str]| {
            let (theirs, ours) = (docker.run(line), dozen.run(line));
            assert_eq!((theirs.code, theirs.out), (ours.code, ours.out), "{line:?}");
            assert_eq!(ours.code, 0, "{line:?}: {}", ours.err);
        };
        for template in [
            "{{.ID}} {{.Image}} {{.Name}} {{.Path}} {{.Args}} {{.ExecIDs}}",
            "{{.HostConfig.DNS}} {{.HostConfig.NanoCPUs}} {{.HostConfig.CPUShares}} {{.HostConfig.PidsLimit}}",
            "{{.HostConfig.Binds}} {{.HostConfig.CapAdd}} {{.HostConfig.GroupAdd}} {{.HostConfig.Init}}",
            "{{.Config.User}}|{{.Config.Entrypoint}} {{json .Config.Entrypoint}} {{join .Config.Entrypoint \",\"}}",
            "{{.Config.Volumes}} {{.Config.OnBuild}} {{.Config.Healthcheck}} {{.Config.StopSignal}}",
            "{{.Config.ExposedPorts}} {{.HostConfig.PortBindings}} {{.NetworkSettings.Ports}}",
            "{{index .Config.Labels \"x\"}}|{{.Config.Labels.a}} {{.Config.Labels.x}} {{.Config.Labels}}",
            "{{.State.Health}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.SizeRw}}",
            "{{range .Mounts}}{{.Type}}|{{.Name}}|{{.Source}}|{{.Driver}}|{{.RW}}{{end}}",
            "{{range $port, $hosts := .NetworkSettings.Ports}}{{$port}}={{len $hosts}} {{end}}",
        ] {
            same(&["inspect", "--format", template, "web"]);
        }
        for template in [
            "{{.Config.User}}|{{json .Config.Entrypoint}} {{.Config.Volumes}} {{.Config.Cmd}} {{.Config.WorkingDir}}",
            "{{index .Config.Labels \"x\"}}|{{.RepoTags}} {{.RepoDigests}} {{.Architecture}}/{{.Os}} {{.Variant}}",
        ] {
            same(&["image", "inspect", "--format", template, "busybox"]);
        }
        same(&["volume", "inspect", "--format", "{{.Options}} {{.Labels}} {{.Scope}} {{.Driver}}", "data"]);
        same(&["version", "--format", "{{.Server.APIVersion}} {{.Server.Experimental}} {{.Server.GitCommit}}"]);
        same(&["info", "--format", "{{.ID}} {{.ServerVersion}} {{.NCPU}} {{.OSType}}"]);
        let template = "{{.Type}} {{.Status}} {{.ID}} {{.From}} {{.Time}} {{.TimeNano}} {{.Scope}} {{.Actor.ID}}";
        same(&["events", "--since", "10m", "--until", &next_second(), "--format", template]);
    });
}
