//! The works on Dockerfiles. What a cold build finds nothing of is thrown away before its clock runs: by its engine's own
//! words, as a user would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::image;
use super::super::work::Subject;
use super::tasks::Task;
use super::{memory, no_engine, quietly, tasks};
use crate::failure::{Attempt, Failure};

/// Where contexts are: on the disk where the engines' data is too.
const CONTEXTS: &str = "/var/tmp/builds";
/// How many small files a context has.
const FILES: usize = 10_000;
const FILE_BYTES: usize = 512;
const FILES_IN_DIRECTORY: usize = 100;

/// What is built, and what of it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// The time without anything in the cache.
    Cold,
    /// The time where all is in the cache.
    Cached,
    /// What the engine's processes take at most meanwhile.
    Memory,
}

/// A Dockerfile and its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Thirteen instructions, four of which run something.
    Instructions,
    /// One COPY of many small files.
    Files,
    /// Two stages that do not need each other, and sleep.
    Stages,
    /// A step that writes 5 GB of what cannot be made smaller.
    Large,
}

impl Recipe {
    fn dockerfile(self) -> String {
        let from = image::NAME;
        match self {
            Self::Instructions => format!(
                "FROM {from}\nARG VERSION=1\nENV NAME=bench VERSION=$VERSION\nLABEL version=1\nWORKDIR /application\n\
                 COPY requirements.txt .\nRUN wc -l requirements.txt > lines\nRUN mkdir -p /data && echo $NAME > /data/name\n\
                 COPY . .\nRUN ls -l > listing\nRUN chown 1000 /data\nUSER 1000\nCMD [\"cat\", \"listing\"]\n"
            ),
            Self::Files => format!("FROM {from}\nCOPY . /files\n"),
            Self::Stages => format!(
                "FROM {from} AS one\nRUN sleep 3 && echo 1 > /one\nFROM {from} AS two\nRUN sleep 3 && echo 2 > /two\n\
                 FROM {from}\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
            ),
            Self::Large => format!("FROM {from}\nRUN dd if=/dev/urandom of=/large bs=1M count=5000\n"),
        }
    }

    fn fill(self, context: &Path) -> std::io::Result<()> {
        match self {
            Self::Instructions => {
                fs::write(context.join("requirements.txt"), "flask==3.0\nredis==5.0\n")?;
                fs::write(context.join("app.py"), "print('hello')\n")
            }
            Self::Files => (0..FILES).try_for_each(|number| {
                let directory = context.join(format!("part-{}", number / FILES_IN_DIRECTORY));
                if number % FILES_IN_DIRECTORY == 0 {
                    fs::create_dir(&directory)?;
                }
                fs::write(directory.join(format!("file-{number}.py")), format!("{number:0width$}", width = FILE_BYTES))
            }),
            Self::Stages | Self::Large => Ok(()),
        }
    }
}

/// Builds by one builder.
pub struct Builds {
    builder: Subject,
    recipe: Recipe,
    figure: Figure,
}

impl Builds {
    /// `builder` is the name of a subject that builds.
    pub fn new(builder: &str, recipe: Recipe, figure: Figure) -> Result<Self, Failure> {
        let builder = Subject::of_name(builder).ok_or_else(no_engine)?;
        Ok(Self { builder, recipe, figure })
    }

    /// A place of its own for each recipe: its files have not changed since, which is what BuildKit's client goes by.
    fn context(&self) -> PathBuf {
        Path::new(CONTEXTS).join(format!("{:?}", self.recipe))
    }

    /// The image's name, of this work's own.
    fn tag(&self) -> String {
        format!("built-{}-{}", self.builder.name(), format!("{:?}", self.recipe).to_lowercase())
    }

    fn build(&self) -> Result<(), Failure> {
        let mut command = self.command(&["build"]);
        // Of every step a layer that is found again, as the others do.
        if self.builder == Subject::Buildah {
            // Its own limits are some that the host may not let it have.
            let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];
            command.args(["--layers", "--pull=never"]).args(limits);
        }
        if self.figure != Figure::Cached {
            command.arg("--no-cache");
        }
        quietly(command.args(["--tag", &self.tag()]).arg(self.context()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (program, buildkit) = match self.builder {
            Subject::Buildkit => ("docker", Some("1")),
            Subject::Classic => ("docker", Some("0")),
            other => (other.name(), None),
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(buildkit.map(|value| ("DOCKER_BUILDKIT", value)));
        // buildx keeps state of its own, by default at home, where nothing can be written.
        command.env("BUILDX_CONFIG", "/tmp/buildx");
        command
    }

    /// Throws away the image and all that the builder keeps of it.
    fn forget(&self) -> Result<(), Failure> {
        // The first round has none.
        let _ = quietly(&mut self.command(&["rmi", "--force", &self.tag()]));
        let prune: &[&str] = match self.builder {
            Subject::Buildah => &["rmi", "--prune", "--force"],
            Subject::Classic => &["image", "prune", "--force"],
            _ => &["builder", "prune", "--all", "--force"],
        };
        quietly(&mut self.command(prune))
    }
}

impl Task for Builds {
    fn prepare(&mut self) -> Result<(), Failure> {
        let context = self.context();
        let said = format!("write {}", context.display());
        remove(&context)?;
        fs::create_dir_all(&context).attempting(&said)?;
        self.recipe.fill(&context).attempting(&said)?;
        fs::write(context.join("Dockerfile"), self.recipe.dockerfile()).attempting(&said)?;
        if self.figure == Figure::Cached { self.build() } else { Ok(()) }
    }

    fn round(&mut self) -> Result<f64, Failure> {
        if self.figure != Figure::Cached {
            self.forget()?;
        }
        rustix::fs::sync();
        if self.figure != Figure::Memory {
            return tasks::seconds(|| self.build());
        }
        let engine = memory::processes();
        memory::forget_peaks(engine.keys())?;
        self.build()?;
        Ok(memory::peaks_of(engine.keys())? as f64)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.forget()?;
        remove(&self.context())
    }
}

fn remove(directory: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.attempting(format_args!("remove {}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_are_what_their_rows_say() {
        assert_eq!(Recipe::Instructions.dockerfile().lines().count(), 13);
        assert_eq!(Recipe::Stages.dockerfile().matches("sleep 3").count(), 2);
        let context = tempfile::tempdir().unwrap();
        Recipe::Files.fill(context.path()).unwrap();
        let directories = fs::read_dir(context.path()).unwrap().map(|entry| entry.unwrap().path());
        let files: usize = directories.map(|directory| fs::read_dir(directory).unwrap().count()).sum();
        assert_eq!(files, FILES);
    }
}
