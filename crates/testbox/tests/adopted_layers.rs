//! What a step of a build has written is its layer as it lies, and the same layer as when it has to be copied.

#![allow(clippy::unwrap_used, missing_docs)]

use dozen_testbox::{Daemon, Done, Machine, dozen_program, image_archive};

/// Steps that leave all that a layer can hold of what an overlay keeps.
const DOCKERFILE: &str = "FROM busybox AS base\n\
    RUN mkdir -p /d/deep/er /gone/below /kept && echo 1 >/d/file && echo 2 >/d/deep/file && echo 3 >/gone/below/file && \
        dd if=/dev/urandom of=/kept/noise bs=1M count=3 2>/dev/null && : >/kept/noise && echo 4 >/kept/other\n\
    RUN rm -r /gone && mkdir /gone && echo new >/gone/new && rm /d/deep/file && mv /d/file /d/moved && \
        ln /d/moved /d/linked && chown 7:8 /kept/other && chmod 4711 /kept/other && ln -s moved /d/link && \
        mkfifo /d/pipe && truncate -s 8M /d/holes && printf x | dd of=/d/holes bs=1 seek=5000000 \
        conv=notrunc 2>/dev/null && chmod 1777 /kept && touch -d @1500000000 /kept/other /kept\n\
    RUN --mount=type=tmpfs,target=/fresh --mount=type=cache,target=/d/cache true\n\
    RUN rm -rf /kept && mkdir /kept\n\
    FROM base\n\
    COPY --from=base /d /copied\n";

fn build(machine: &Machine, tag: &str, dockerfile: &str) -> Done {
    let flags =
        ["--network", "none", "--build-arg", "SOURCE_DATE_EPOCH=1600000000", "--progress", "plain", "-t", tag, "-"];
    machine.run_with(dozen_program(), &[&["build"], &flags[..]].concat(), dockerfile.as_bytes(), &[])
}

/// What it says of its file in the step, and of the same file in a container later: the inode is that of the layer's own
/// file (kernel: Documentation/filesystems/overlayfs.rst, "Inode properties").
fn inodes(machine: &Machine) -> [String; 2] {
    let told =
        build(machine, "told", "FROM busybox\nRUN echo x >/file && echo inode=$(stat -c %i /file)\n").expect(0).err;
    let said = told.lines().filter_map(|line| line.split_once(" inode=")).map(|(_, inode)| inode.to_owned());
    let inode = said.into_iter().find(|inode| inode.bytes().all(|byte| byte.is_ascii_digit())).unwrap();
    let line = ["run", "--rm", "--network", "none", "told", "stat", "-c", "%i", "/file"];
    [inode, machine.run(dozen_program(), &line).text().trim().to_owned()]
}

#[test]
fn a_layer_is_the_same_however_it_comes_to_be() {
    let mut images = Vec::new();
    for (way, configuration) in [("adopted", "{}"), ("copied", "{}"), ("ids", r#"{ "userns-remap": "auto" }"#)] {
        let machine = Machine::new();
        if way == "copied" {
            // A mount is as good as another file system: nothing can be renamed out of it.
            let containers = machine.directory().join("data/containers");
            std::fs::create_dir_all(&containers).unwrap();
            let containers = containers.to_str().unwrap();
            machine.run("mount", &["--bind", containers, containers]).expect(0);
        }
        let engine = Daemon::with_file(&machine, configuration);
        engine.dozen(&["load", "-i", image_archive("busybox").to_str().unwrap()]).expect(0);
        build(&machine, "built", DOCKERFILE).expect(0);
        let [made, found] = inodes(&machine);
        assert_eq!(made == found, way != "copied", "{way}: {made} and {found}");
        let listed = engine.dozen(&["run", "--rm", "--network", "none", "--userns", "host", "built", "sh", "-c", LOOK]);
        let id = engine.dozen(&["image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", "built"]).text();
        images.push((id, listed.expect(0).out));
        assert!(engine.dozen(&["ps", "-aq"]).text().is_empty());
        let left = std::fs::read_dir(machine.directory().join("data/tmp")).unwrap().count();
        assert_eq!(left, 0, "{way}");
        // It is given to others to the byte, which the digest proves.
        engine.dozen(&["save", "-o", "saved", "built"]).expect(0);
        engine.dozen(&["builder", "prune", "-af"]).expect(0);
        engine.dozen(&["rmi", "-f", "built", "told", "busybox"]).expect(0);
        assert_eq!(std::fs::read_dir(machine.directory().join("data/layers")).unwrap().count(), 0, "{way}");
    }
    assert!(images[0].1.contains("/d/holes 8388608"), "{}", images[0].1);
    assert_eq!(images[0], images[1]);
    assert_eq!(images[0], images[2]);
}

const LOOK: &str = "find /d /copied /gone /kept | sort | while read -r at; do stat -c '%n %s %f %u:%g %h %t,%T %Y' $at; done; \
    find /d /copied /kept -type f | sort | xargs md5sum";
