//! The servers that the same load is put on.

mod baseline;
mod centrifugo;
mod floor;
mod hark;
mod mercure;
mod nchan;
mod ntfy;
mod simple;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dialect::Dialect;
use crate::load::Target;
use crate::server::{Launch, Server};
pub(crate) use hark::{Node, listens};
#[cfg(test)]
pub(crate) use simple::Simple;

/// A server that can be measured.
pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// The program that it needs, beside those that are built with the bench.
    fn program(&self) -> Option<&'static str> {
        None
    }

    /// The arguments with which its program tells its version.
    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    /// The line of what it says then that is the version.
    fn is_version(&self, _line: &str) -> bool {
        true
    }

    /// How it is set up, for the reader of the table.
    fn setup(&self) -> &'static str;

    /// Starts it, fresh and with nothing stored.
    fn start(&self, place: &Place<'_>) -> io::Result<Running>;
}

/// All of them: ours, the physical limit, what a user would write, and what a user would install.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(floor::Feed),
        Box::new(floor::Floor),
        Box::new(hark::Hark { mosquitto: false }),
        Box::new(hark::Hark { mosquitto: true }),
        Box::new(baseline::Baseline),
        Box::new(nchan::Nchan),
        Box::new(centrifugo::Centrifugo),
        Box::new(mercure::Mercure { durable: false }),
        Box::new(mercure::Mercure { durable: true }),
        Box::new(ntfy::Ntfy { durable: false }),
        Box::new(ntfy::Ntfy { durable: true }),
    ]
}

/// Where programs are, and where a server is to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// Given by name on the command line.
    pub(crate) given: BTreeMap<String, PathBuf>,
    /// The folder of Hark's own binaries.
    pub(crate) own: PathBuf,
}

/// Where a server is to run.
pub(crate) struct Place<'a> {
    pub(crate) programs: &'a Programs,
    /// The processors that it is pinned to.
    pub(crate) processors: Vec<usize>,
    /// Those of the part of it that streams.
    pub(crate) streaming: Vec<usize>,
    /// An empty folder of its own.
    pub(crate) folder: &'a Path,
    /// Streams will be resumed: keep what is published, where that is a setting.
    pub(crate) history: bool,
    /// Name and text of the files that were written for it.
    pub(crate) written: RefCell<Vec<(String, String)>>,
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) servers: Vec<Server>,
    pub(crate) target: Target,
    /// How a further node that streams is started, where there can be one.
    pub(crate) node: Option<Node>,
}

impl Running {
    /// One server at one address.
    fn single(server: Server, address: SocketAddr, dialect: impl Dialect + 'static) -> Self {
        Self {
            servers: vec![server],
            target: Target {
                listen: address,
                publish: address,
                dialect: Box::new(dialect),
            },
            node: None,
        }
    }

    /// The server that streams: the last that was started.
    pub(crate) fn streaming(&self) -> Option<&Server> {
        self.servers.last().filter(|_| self.servers.len() > 1)
    }
}

impl Programs {
    /// A program that was given, or that is in `PATH` or where Debian has services.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        if let Some(given) = self.given.get(name) {
            return Some(given.clone());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|folder| folder.join(name))
            .find(|program| program.is_file())
    }

    /// What a peer's program says about its version.
    pub(crate) fn version(&self, peer: &dyn Peer) -> Option<String> {
        let program = self.find(peer.program()?)?;
        let output = Command::new(program)
            .args(peer.version_arguments())
            .output();
        let output = output.ok()?;
        // nginx tells it on standard error.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| peer.is_version(line));
        line.map(str::to_owned)
    }
}

impl Place<'_> {
    fn launch(&self, name: &str) -> io::Result<Launch> {
        let program = self.programs.find(name);
        let program =
            program.ok_or_else(|| io::Error::other(format!("{name} is not installed")))?;
        Ok(Launch::new(&program, &self.processors))
    }

    /// One of the binaries that are built with the bench.
    fn launch_own(&self, name: &str) -> Launch {
        Launch::new(&self.programs.own.join(name), &self.processors)
    }

    /// Writes a file into its folder.
    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        let file = (name.to_owned(), text.to_owned());
        self.written.borrow_mut().push(file);
        Ok(path)
    }
}

/// How Hark is spoken to.
pub(crate) fn hark_dialect() -> Box<dyn Dialect> {
    Box::new(hark::Rest)
}
