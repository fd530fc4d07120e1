//! `cargo xtask dist`: what is installed on servers. Static programs for two architectures (so that
//! they run on any Linux and alone in an image), in tarballs and Debian packages, with checksums.
//!
//! The C parts (SQLite, ring, mimalloc) need a compiler and a libc for each architecture: zig is
//! both, for all of them, in one package.

mod check;
mod debian;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::bench;
use crate::run;

/// From the Python package index, into a folder of their own: compiler and linker for every target.
const COMPILER: [&str; 2] = ["cargo-zigbuild==0.24.0", "ziglang==0.17.1"];

/// The programs that are shipped; each has a package and a binary of that name.
const PROGRAMS: [&str; 4] = ["hark", "chat-service", "broadcast-sse", "broker"];

/// What a failed step says.
pub(crate) type Step<T = ()> = Result<T, String>;

/// Where it is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// As Rust and the kernel call it.
    pub(crate) name: &'static str,
    /// As Debian calls it.
    pub(crate) debian: &'static str,
}

/// All of them.
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "x86_64",
        debian: "amd64",
    },
    Architecture {
        name: "aarch64",
        debian: "arm64",
    },
];

/// One run of `dist`.
pub(crate) struct Dist {
    /// What is built and packed: the commit, without what else lies in the checkout.
    source: PathBuf,
    target: PathBuf,
    /// Where the results are: `target/dist`.
    pub(crate) out: PathBuf,
    /// As Debian orders them: what is built between releases comes before the next one.
    pub(crate) version: String,
    /// When the commit was made, in seconds: the time of every file, so that the same commit gives
    /// the same archives.
    time: String,
}

/// Builds for the architectures named, or for all.
pub(crate) fn dist(root: &Path, arguments: &[String]) -> ExitCode {
    let chosen: Option<Vec<_>> = arguments.iter().map(|name| architecture(name)).collect();
    let Some(mut chosen) = chosen else {
        eprintln!("usage: cargo xtask dist [x86_64] [aarch64]");
        return ExitCode::from(64);
    };
    if chosen.is_empty() {
        chosen = ARCHITECTURES.to_vec();
    }
    match Dist::new(root).and_then(|dist| dist.run(&chosen)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dist: {why}");
            ExitCode::FAILURE
        }
    }
}

fn architecture(name: &str) -> Option<Architecture> {
    ARCHITECTURES.into_iter().find(|known| known.name == name)
}

/// The architecture of this machine, if it is one that is built for.
pub(crate) fn own_architecture() -> Option<Architecture> {
    architecture(std::env::consts::ARCH)
}

impl Dist {
    pub(crate) fn new(root: &Path) -> Step<Self> {
        let target = bench::target(root);
        let git = |arguments: &[&str]| {
            output(
                Command::new("git")
                    .args(arguments)
                    .current_dir(root)
                    .env("TZ", "UTC"),
            )
        };
        let commit = git(&["rev-parse", "HEAD"])?;
        let released = env!("CARGO_PKG_VERSION");
        let version = match git(&["describe", "--exact-match", "--match", "v*", &commit]) {
            Ok(tag) if tag == format!("v{released}") => released.to_owned(),
            // No tag, or that of something else.
            _ => {
                let date = "--date=format-local:%Y%m%d%H%M%S";
                let when = git(&["log", "-1", date, "--format=%cd.%h", &commit])?;
                format!("{released}~{when}")
            }
        };
        let time = git(&["log", "-1", "--format=%ct", &commit])?;
        let source = target.join("dist-source");
        // A checkout of its own writes only the files that differ from those of the last run, so that
        // cargo compiles no more than it has to.
        if !source.join(".git").exists() {
            empty_folder(&source)?;
            let to = source.to_string_lossy();
            git(&["clone", "--quiet", "--shared", "--no-checkout", ".", &to])?;
        }
        let source_git =
            |arguments: &[&str]| output(Command::new("git").arg("-C").arg(&source).args(arguments));
        source_git(&["checkout", "--quiet", "--force", "--detach", &commit])?;
        source_git(&["clean", "--quiet", "-ffdx"])?;
        Ok(Self {
            source,
            out: target.join("dist"),
            target,
            version,
            time,
        })
    }

    /// Builds, tries and packs.
    pub(crate) fn run(&self, architectures: &[Architecture]) -> Step {
        let compiler = self.compiler()?;
        empty_folder(&self.out)?;
        for &architecture in architectures {
            self.build(architecture, &compiler)?;
            check::runs(self, architecture)?;
            self.tarball(architecture)?;
            debian::packages(self, architecture)?;
        }
        debian::page(self)?;
        self.checksums()?;
        println!("{} is in {}", self.version, self.out.display());
        Ok(())
    }

    /// Packs what is built as if it were later, to try an upgrade; gives the folder.
    pub(crate) fn pack_as_later(&mut self, architecture: Architecture) -> Step<PathBuf> {
        self.out = self.target.join("dist-later");
        self.version += "+later";
        empty_folder(&self.out)?;
        debian::packages(self, architecture)?;
        debian::page(self)?;
        Ok(self.out.clone())
    }

    /// Where a program of an architecture lies.
    pub(crate) fn program(&self, architecture: Architecture, name: &str) -> PathBuf {
        let target = target(architecture);
        self.target.join(target).join("release").join(name)
    }

    /// Installs the compiler, and gives the folder of its programs.
    fn compiler(&self) -> Step<PathBuf> {
        let folder = self.target.join("dist-tools");
        let programs = folder.join("bin");
        if !programs.join("cargo-zigbuild").exists() {
            shell(Command::new("python3").args(["-m", "venv"]).arg(&folder))
                .map_err(|why| format!("{why}; on Debian: apt-get install python3-venv"))?;
        }
        let mut pip = Command::new(programs.join("pip"));
        shell(pip.args(["install", "--quiet"]).args(COMPILER))?;
        Ok(programs)
    }

    fn build(&self, architecture: Architecture, compiler: &Path) -> Step {
        let target = target(architecture);
        let mut add = Command::new("rustup");
        shell(
            add.args(["target", "add", &target])
                .current_dir(&self.source),
        )?;
        let mut build = run::cargo();
        build.args(["zigbuild", "--locked", "--release", "--bins", "--target"]);
        build.arg(&target);
        for program in PROGRAMS {
            build.args(["--package", program]);
        }
        // cargo looks for `zigbuild` there.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [compiler.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).map_err(|error| error.to_string())?;
        build
            .env("PATH", path)
            .env("CARGO_TARGET_DIR", &self.target);
        shell(build.current_dir(&self.source))
    }

    fn tarball(&self, architecture: Architecture) -> Step {
        let name = format!("hark-{}-{}", self.version, architecture.name);
        let folder = self.out.join(&name);
        create_folder(&folder.join("bin"))?;
        for program in PROGRAMS {
            copy(
                &self.program(architecture, program),
                &folder.join("bin").join(program),
            )?;
        }
        for file in ["LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md"] {
            copy(&self.source.join(file), &folder.join(file))?;
        }
        for part in ["client-demo", "deploy", "docs"] {
            copy_tree(&self.source.join(part), &folder.join(part))?;
        }
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", self.time))
            .args(["-czf", &format!("{name}.tar.gz"), &name])
            .current_dir(&self.out);
        shell(&mut tar)?;
        fs::remove_dir_all(&folder).map_err(|error| at(&folder, &error))
    }

    fn checksums(&self) -> Step {
        let entries = fs::read_dir(&self.out).map_err(|error| at(&self.out, &error))?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let mut sums = Command::new("sha256sum");
        let sums = output(sums.args(names).current_dir(&self.out))?;
        write(&self.out.join("SHA256SUMS"), &format!("{sums}\n"))
    }
}

/// musl, so that a program needs nothing of the system that it runs on.
fn target(architecture: Architecture) -> String {
    format!("{}-unknown-linux-musl", architecture.name)
}

/// Runs a command to its end; its output is shown.
pub(crate) fn shell(command: &mut Command) -> Step {
    if run::run(command).succeeded {
        Ok(())
    } else {
        Err(format!("{} failed", command.get_program().display()))
    }
}

/// Runs a command and gives what it writes to standard output, without the last line's end.
pub(crate) fn output(command: &mut Command) -> Step<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} failed: {why}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

pub(crate) fn create_folder(path: &Path) -> Step {
    fs::create_dir_all(path).map_err(|error| at(path, &error))
}

pub(crate) fn write(path: &Path, text: &str) -> Step {
    fs::write(path, text).map_err(|error| at(path, &error))
}

pub(crate) fn read(path: &Path) -> Step<String> {
    fs::read_to_string(path).map_err(|error| at(path, &error))
}

/// A folder with nothing in it, whatever was there before.
pub(crate) fn empty_folder(path: &Path) -> Step {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|error| at(path, &error))?;
    }
    create_folder(path)
}

/// Copies a folder to a place where there is none.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Step {
    create_folder(to.parent().unwrap_or(to))?;
    shell(Command::new("cp").arg("-R").args([from, to]))
}

/// Copies a file with its permissions.
pub(crate) fn copy(from: &Path, to: &Path) -> Step {
    fs::copy(from, to)
        .map(|_bytes| ())
        .map_err(|error| at(from, &error))
}

pub(crate) fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
