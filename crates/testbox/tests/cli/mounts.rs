//! Volumes, binds and tmpfs.

use crate::{Program, for_both};

for_both!(volumes_with_copy_up, anonymous_volumes, binds, memory, refused);

fn volumes_with_copy_up(program: Program) {
    program.with(|cli| {
        // A volume that is empty takes what the image has there, with its owners and modes.
        let first = cli.say(&["-v", "etc:/etc"], "ls -l /etc/shadow | cut -c1-10; echo mine >/etc/mine");
        assert_eq!(first, "-rw-r-----\n");
        assert_eq!(
            cli.say(&["-v", "etc:/else"], "cat /else/mine; test -e /else/passwd && echo copied"),
            "mine\ncopied\n"
        );
        // It is not empty any more: nothing is copied into it again.
        cli.say(&["-v", "etc:/else"], "rm /else/passwd");
        cli.script(&["-v", "etc:/etc"], "test -e /etc/passwd").expect(1);
        cli.say(&["-v", "plain:/etc:nocopy"], "test ! -e /etc/passwd");
        cli.script(&["-v", "etc:/data:ro"], "echo no >/data/x").refuses(1, &["Read-only file system"]);
        assert_eq!(cli.text(&["volume", "ls", "-q"]), "etc\nplain\n");
        let mountpoint = cli.text(&["volume", "inspect", "--format", "{{.Mountpoint}}", "etc"]);
        assert!(std::path::Path::new(mountpoint.trim()).join("mine").exists(), "{mountpoint}");
        assert_eq!(cli.text(&["volume", "create", "third"]), "third\n");
        assert_eq!(cli.text(&["volume", "rm", "third"]), "third\n");
        cli.background("user", &["-v", "etc:/data"], "sleep 1000");
        cli.run(&["volume", "rm", "etc"]).refuses(1, &["volume is in use"]);
        cli.text(&["rm", "-f", "user"]);
        cli.text(&["volume", "rm", "etc", "plain"]);
        cli.run(&["volume", "inspect", "etc"]).refuses(1, &["o such volume"]);
    });
}

fn anonymous_volumes(program: Program) {
    program.with(|cli| {
        cli.background("holder", &["-v", "/data"], "echo x >/data/x; sleep 1000");
        let name = cli.inspect("holder", "{{(index .Mounts 0).Name}}");
        assert_eq!(name.len(), 64, "{name}");
        assert_eq!(cli.text(&["volume", "ls", "-q"]).trim(), name);
        cli.text(&["rm", "-f", "holder"]);
        assert_eq!(cli.text(&["volume", "ls", "-q"]).trim(), name);
        cli.text(&["volume", "prune", "-f"]);
        assert_eq!(cli.text(&["volume", "ls", "-q"]), "");
        cli.background("holder", &["-v", "/data"], "sleep 1000");
        cli.text(&["rm", "-f", "-v", "holder"]);
        assert_eq!(cli.text(&["volume", "ls", "-q"]), "");
    });
}

fn binds(program: Program) {
    program.with(|cli| {
        let source = cli.machine.directory().join("shared");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "from the host\n").unwrap();
        let bind = |options: &str| format!("{}:/shared{options}", source.display());
        assert_eq!(cli.say(&["-v", &bind("")], "cat /shared/file; echo back >/shared/answer"), "from the host\n");
        assert_eq!(std::fs::read_to_string(source.join("answer")).unwrap(), "back\n");
        cli.script(&["-v", &bind(":ro")], "echo no >/shared/no").refuses(1, &["Read-only file system"]);
        // A file, over one of the image's.
        let file = format!("{}:/etc/passwd:ro", source.join("file").display());
        assert_eq!(cli.say(&["-v", &file], "cat /etc/passwd"), "from the host\n");
        // `-v` makes what is missing, `--mount` does not.
        let missing = source.join("missing");
        cli.say(&["-v", &format!("{}:/new", missing.display())], "echo x >/new/x");
        assert!(missing.join("x").exists());
        let mount = |source: &str, more: &str| format!("type=bind,source={source},target=/shared{more}");
        let done =
            cli.script(&["--mount", &mount(source.to_str().unwrap(), ",readonly")], "cat /shared/file; >/shared/no");
        assert!(done.out == "from the host\n" && done.err.contains("Read-only file system"), "{done:?}");
        cli.script(&["--mount", &mount("/no/such/place", "")], "true")
            .refuses(125, &["bind source path does not exist: /no/such/place"]);
    });
}

fn memory(program: Program) {
    program.with(|cli| {
        let look =
            "grep ' /scratch ' /proc/mounts; stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1k count=100 2>&1";
        let said = cli.script(&["--tmpfs", "/scratch:size=64k,mode=0700,noexec"], look).expect(1).out;
        assert!(said.contains("tmpfs /scratch tmpfs") && said.contains("noexec") && said.contains("\n700\n"), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        let plain = cli.say(&["--tmpfs", "/scratch"], "grep ' /scratch ' /proc/mounts; stat -c %a /scratch");
        assert!(plain.contains("nosuid") && plain.contains("nodev") && plain.ends_with("1777\n"), "{plain}");
        let mounted = cli.say(&["--mount", "type=tmpfs,target=/scratch,tmpfs-size=128k"], "df -k /scratch | tail -1");
        assert!(mounted.contains(" 128 "), "{mounted}");
        // A root that cannot be written to, and a place that can.
        let only = cli.say(&["--read-only", "--tmpfs", "/tmp"], "touch /x 2>&1; touch /tmp/x && echo written");
        assert!(only.contains("Read-only file system") && only.ends_with("written\n"), "{only}");
    });
}

fn refused(program: Program) {
    program.with(|cli| {
        for (option, words) in [
            ("relative/path:/data", "relative/path"),
            ("name:relative", "mount path must be absolute"),
            ("name:/data:fast", "fast"),
            ("name:/", "destination can't be '/'"),
            ("name:/proc/sys", "\"/proc/sys\" cannot be mounted because it is inside /proc"),
            ("name:/proc", "only a procfs can be mounted on /proc"),
            ("/etc:/proc/1/attr", "inside /proc"),
        ] {
            cli.script(&["-v", option], "true").refuses(125, &[words]);
        }
        cli.script(&["-v", "one:/data", "-v", "two:/data"], "true").refuses(125, &["Duplicate mount point: /data"]);
        assert_eq!(cli.text(&["volume", "ls", "-q"]), "");
    });
}
