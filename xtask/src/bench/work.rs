//! What is measured, as data: the rows of the table, who takes part, and the mark that dozen is held to.

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Dozen,
    Docker,
    Podman,
    Crun,
    Runc,
    Buildkit,
    Classic,
    Buildah,
}

impl Subject {
    /// Everyone; the order within a round.
    const ALL: [Self; 8] =
        [Self::Dozen, Self::Docker, Self::Podman, Self::Crun, Self::Runc, Self::Buildkit, Self::Classic, Self::Buildah];
    /// Who runs containers for users.
    const ENGINES: &[Self] = &[Self::Dozen, Self::Docker, Self::Podman];
    /// Who runs a bundle.
    const RUNTIMES: &[Self] = &[Self::Dozen, Self::Crun, Self::Runc];
    /// Who makes images of Dockerfiles: BuildKit as docker has it in it, docker's builder before that, and podman's.
    const BUILDERS: &[Self] = &[Self::Dozen, Self::Buildkit, Self::Classic, Self::Buildah];

    /// Its name, which is its program's but for docker's two builders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dozen => "dozen",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Buildkit => "buildkit",
            Self::Classic => "classic",
            Self::Buildah => "buildah",
        }
    }

    /// The subject whose program has this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.name() == name)
    }
}

/// What a value of a row counts. Less is better of seconds and bytes, more of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Measured in seconds, shown in milliseconds.
    Milliseconds,
    /// Measured in bytes, shown in MiB.
    Mebibytes,
    /// Measured in bits per second, shown in Gbit/s.
    GigabitsPerSecond,
    /// Requests per second.
    RequestsPerSecond,
    /// A plain number.
    Count,
}

impl Unit {
    /// As it stands behind the row's title.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::GigabitsPerSecond => "Gbit/s",
            Self::RequestsPerSecond => "requests/s",
            Self::Count => "count",
        }
    }

    /// How many of what was measured make one that is shown.
    pub fn scale(self) -> f64 {
        match self {
            Self::Milliseconds => 1e-3,
            Self::Mebibytes => (1 << 20) as f64,
            Self::GigabitsPerSecond => 1e9,
            Self::RequestsPerSecond | Self::Count => 1.0,
        }
    }

    /// Whether the larger value wins.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::GigabitsPerSecond | Self::RequestsPerSecond)
    }
}

/// What dozen's median is held to. A missed mark is shown, and is no failure of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// None: the row is there to be read beside another one.
    None,
    /// At most the other's median divided by this.
    Part(Subject, f64),
    /// As good as the other's, within a twentieth.
    Level(Subject),
    /// Less than this, in the unit as shown.
    Below(f64),
    /// As much as dozen itself has in the row of this name, within a twentieth.
    AsFastAs(&'static str),
}

/// A row.
#[derive(Debug)]
pub struct Work {
    /// What `--only` takes.
    pub name: &'static str,
    /// What the table says.
    pub title: &'static str,
    pub unit: Unit,
    pub subjects: &'static [Subject],
    /// Never more rounds than this: for what takes long or hardly varies.
    pub most_rounds: u32,
    pub mark: Mark,
    /// Only on request.
    pub on_request: bool,
}

impl Work {
    /// Whether it needs the large image's archive.
    pub fn is_of_archives(&self) -> bool {
        const NAMES: [&str; 6] = ["load", "load-again", "load-memory", "save", "floor-hash", "floor-write"];
        NAMES.contains(&self.name) || self.is_of_registries()
    }

    /// Whether it needs a registry.
    pub fn is_of_registries(&self) -> bool {
        ["pull", "floor-pull", "pull-again", "push", "push-pulled"].contains(&self.name)
    }

    /// Whether it is one of builders.
    pub fn is_of_builds(&self) -> bool {
        self.name.starts_with("build-")
    }

    /// Whether it is one of runtimes, without an engine.
    pub fn is_of_runtimes(&self) -> bool {
        self.subjects == Subject::RUNTIMES
    }
}

const fn timed(name: &'static str, title: &'static str, subjects: &'static [Subject], mark: Mark) -> Work {
    Work { name, title, unit: Unit::Milliseconds, subjects, most_rounds: u32::MAX, mark, on_request: false }
}

const fn traffic(name: &'static str, title: &'static str, unit: Unit, mark: Mark) -> Work {
    Work { name, title, unit, subjects: Subject::ENGINES, most_rounds: 5, mark, on_request: false }
}

/// On a network that is made for it: podman would write it to its own directory in /etc, and a cell's is read-only.
const fn neighbours(name: &'static str, title: &'static str, unit: Unit) -> Work {
    const SUBJECTS: &[Subject] = &[Subject::Dozen, Subject::Docker];
    Work {
        name,
        title,
        unit,
        subjects: SUBJECTS,
        most_rounds: 5,
        mark: Mark::Level(Subject::Docker),
        on_request: false,
    }
}

const fn archive(name: &'static str, title: &'static str, subjects: &'static [Subject], mark: Mark) -> Work {
    Work { name, title, unit: Unit::Milliseconds, subjects, most_rounds: 3, mark, on_request: false }
}

/// Our own registry, and docker-registry.
const fn server(name: &'static str, title: &'static str, unit: Unit) -> Work {
    const SUBJECTS: &[Subject] = &[Subject::Dozen, Subject::Docker];
    Work {
        name,
        title,
        unit,
        subjects: SUBJECTS,
        most_rounds: 5,
        mark: Mark::Part(Subject::Docker, 2.0),
        on_request: false,
    }
}

const fn counted(name: &'static str, title: &'static str, unit: Unit, most_rounds: u32) -> Work {
    Work { name, title, unit, subjects: Subject::ENGINES, most_rounds, mark: Mark::None, on_request: true }
}

const fn runtime(name: &'static str, title: &'static str, unit: Unit, most_rounds: u32) -> Work {
    Work { name, title, unit, subjects: Subject::RUNTIMES, most_rounds, mark: Mark::None, on_request: false }
}

const fn build(name: &'static str, title: &'static str, most_rounds: u32, mark: Mark) -> Work {
    Work { name, title, unit: Unit::Milliseconds, subjects: Subject::BUILDERS, most_rounds, mark, on_request: false }
}

/// A row of dozen's alone.
const fn crowd(name: &'static str, title: &'static str, unit: Unit, most_rounds: u32, limit: f64) -> Work {
    Work { name, title, unit, subjects: &[Subject::Dozen], most_rounds, mark: Mark::Below(limit), on_request: false }
}

const TENTH_OF_DOCKER: Mark = Mark::Part(Subject::Docker, 10.0);
const THIRD_OF_DOCKER: Mark = Mark::Part(Subject::Docker, 3.0);
const HALF_OF_BUILDKIT: Mark = Mark::Part(Subject::Buildkit, 2.0);

/// All rows, in the order in which they are measured: memory at rest comes first, before anything has grown.
pub const ALL: &[Work] = &[
    Work {
        name: "rest",
        title: "engine at rest, PSS of all its processes",
        unit: Unit::Mebibytes,
        subjects: &[Subject::Dozen, Subject::Docker],
        most_rounds: 3,
        mark: Mark::Below(12.0),
        on_request: false,
    },
    timed("run", "run --rm IMAGE true, bridge", Subject::ENGINES, TENTH_OF_DOCKER),
    timed("run-none", "the same, --network none", Subject::ENGINES, TENTH_OF_DOCKER),
    timed("api", "create + start + wait + delete by API, bridge", Subject::ENGINES, Mark::Part(Subject::Docker, 15.0)),
    timed("runtime", "runtime run /bin/true, Docker's default spec", Subject::RUNTIMES, Mark::Part(Subject::Crun, 2.0)),
    runtime("runtime-cpu", "the processor time that it costs", Unit::Milliseconds, 5),
    runtime("runtime-kernel", "of that, the kernel's part", Unit::Milliseconds, 5),
    runtime("runtime-syscalls", "its system calls, the container's own included", Unit::Count, 1),
    timed("exec", "exec C true", Subject::ENGINES, TENTH_OF_DOCKER),
    timed("stop", "stop of a well-behaved process", Subject::ENGINES, TENTH_OF_DOCKER),
    timed("rm", "rm -f of a running one", Subject::ENGINES, TENTH_OF_DOCKER),
    Work {
        name: "fifty",
        title: "50 containers by API, 8 at a time",
        unit: Unit::Milliseconds,
        subjects: Subject::ENGINES,
        most_rounds: 5,
        mark: Mark::Below(700.0),
        on_request: false,
    },
    Work {
        name: "container",
        title: "per running container, PSS without its payload",
        unit: Unit::Mebibytes,
        subjects: Subject::ENGINES,
        most_rounds: 3,
        mark: Mark::Below(0.3),
        on_request: false,
    },
    Work {
        name: "growth",
        title: "the same with what the engine itself grows by, 50 of them",
        unit: Unit::Mebibytes,
        subjects: Subject::ENGINES,
        most_rounds: 2,
        mark: Mark::None,
        on_request: true,
    },
    traffic("bridge-stream", "one stream to the bridge address", Unit::GigabitsPerSecond, Mark::None),
    traffic(
        "port-stream",
        "one stream to a port on 127.0.0.1",
        Unit::GigabitsPerSecond,
        Mark::AsFastAs("bridge-stream"),
    ),
    traffic("bridge-requests", "8 connections to the bridge address", Unit::RequestsPerSecond, Mark::None),
    traffic(
        "port-requests",
        "8 connections to a port on 127.0.0.1",
        Unit::RequestsPerSecond,
        Mark::AsFastAs("bridge-requests"),
    ),
    neighbours("neighbour-stream", "one stream from container to container", Unit::GigabitsPerSecond),
    neighbours("neighbour-requests", "8 connections from container to container", Unit::RequestsPerSecond),
    Work {
        name: "names",
        title: "a name of 1,000, asked for in a container: 99th percentile",
        unit: Unit::Milliseconds,
        subjects: &[Subject::Dozen, Subject::Docker],
        most_rounds: 5,
        mark: Mark::Below(1.0),
        on_request: false,
    },
    archive("log-write", "200 MB of log written", Subject::ENGINES, Mark::Level(Subject::Podman)),
    archive("log-read", "200 MB of log read", Subject::ENGINES, Mark::Part(Subject::Podman, 5.0)),
    crowd("crowd-memory", "500 containers: the engine's PSS", Unit::Mebibytes, 1, 40.0),
    crowd("crowd-list", "500 containers: ps", Unit::Milliseconds, 15, 10.0),
    crowd("crowd-restart", "500 containers: an engine killed, the next one answers", Unit::Milliseconds, 5, 300.0),
    archive("load", "load of an image of 652 MB, six layers", Subject::ENGINES, THIRD_OF_DOCKER),
    archive("floor-hash", "that many bytes read and hashed by one thread", &[Subject::Dozen], Mark::None),
    archive("floor-write", "that many bytes written to the disk", &[Subject::Dozen], Mark::None),
    archive("load-again", "load of the same image where it is there", Subject::ENGINES, Mark::Below(200.0)),
    archive("save", "save of that image", Subject::ENGINES, THIRD_OF_DOCKER),
    Work {
        name: "load-memory",
        title: "the most that the engine's processes take while it loads it",
        unit: Unit::Mebibytes,
        subjects: &[Subject::Dozen, Subject::Docker],
        most_rounds: 1,
        mark: Mark::Below(64.0),
        on_request: false,
    },
    archive("pull", "pull of that image, compressed, from a registry on loopback", Subject::ENGINES, THIRD_OF_DOCKER),
    archive(
        "floor-pull",
        "its layers over loopback, inflated and on the disk, by two threads",
        &[Subject::Dozen],
        Mark::None,
    ),
    archive("pull-again", "the same where it is there", Subject::ENGINES, Mark::None),
    archive("push", "push of that image, which was loaded", Subject::ENGINES, Mark::Part(Subject::Docker, 5.0)),
    archive("push-pulled", "push to an empty registry of what was pulled", Subject::ENGINES, Mark::Below(1000.0)),
    server("serve-pulls", "100 clients ask a registry for a layer of 100 MB: until all have it", Unit::Milliseconds),
    server("serve-memory", "the most that the registry takes meanwhile", Unit::Mebibytes),
    build("build-cold", "13 instructions, cold", 9, HALF_OF_BUILDKIT),
    build("build-cached", "the same, all cached", 15, Mark::Below(40.0)),
    build("build-files", "COPY of 10,000 small files, cold", 5, HALF_OF_BUILDKIT),
    build("build-files-cached", "the same, unchanged", 9, Mark::Below(120.0)),
    build("build-stages", "two independent stages that sleep 3 s each, cold", 3, Mark::Below(3200.0)),
    Work {
        name: "build-memory",
        title: "the most that the engine's processes take while a step writes 5 GB",
        unit: Unit::Mebibytes,
        subjects: &[Subject::Dozen],
        most_rounds: 1,
        mark: Mark::Below(100.0),
        on_request: false,
    },
    counted("cpu", "processor time of run --rm IMAGE true, bridge, everyone's", Unit::Milliseconds, 15),
    counted("syscalls", "system calls of run --rm IMAGE true, bridge", Unit::Count, 1),
    counted("syscalls-none", "system calls of the same, --network none", Unit::Count, 1),
    counted("forks", "processes and threads that run --rm IMAGE true starts, bridge", Unit::Count, 1),
];

/// The rows that are asked for.
pub fn chosen(only: &[String], requested: bool) -> Result<Vec<&'static Work>, String> {
    if let Some(unknown) = only.iter().find(|name| !ALL.iter().any(|work| work.name == **name)) {
        return Err(unknown.clone());
    }
    let wanted = |work: &&Work| match only.is_empty() {
        true => requested || !work.on_request,
        false => only.iter().any(|name| name == work.name),
    };
    Ok(ALL.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_names_a_row_or_someone_who_takes_part() {
        for work in ALL {
            match work.mark {
                Mark::Part(other, _) | Mark::Level(other) => assert!(work.subjects.contains(&other), "{}", work.name),
                Mark::AsFastAs(row) => assert!(ALL.iter().any(|other| other.name == row), "{}", work.name),
                Mark::None | Mark::Below(_) => {}
            }
        }
    }

    #[test]
    fn rows_are_chosen_by_name() {
        let names = |only: &[&str], requested| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only, requested).map(|rows| rows.iter().map(|work| work.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["rm", "exec"], false).unwrap(), ["exec", "rm"]);
        assert_eq!(names(&["forks"], false).unwrap(), ["forks"]);
        assert_eq!(names(&["rn"], false).unwrap_err(), "rn");
        assert!(!names(&[], false).unwrap().contains(&"forks"));
        assert_eq!(names(&[], true).unwrap().len(), ALL.len());
    }
}
