use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use test_kit::{Process, Program, ensure, eventually};
use tokio::net::TcpStream;

/// nginx (Debian package `nginx`), which spreads posts and streams over the nodes.
pub struct Front {
    address: SocketAddr,
    inside: SocketAddr,
    folder: TempDir,
    process: Option<Process>,
}

impl Front {
    /// One that is not started yet: the nodes are told where it will be.
    pub(super) fn new() -> Self {
        Self {
            address: free_address(),
            inside: free_address(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            process: None,
        }
    }

    /// Starts it in front of these nodes.
    pub(super) async fn start(&mut self, chat: &[SocketAddr], sse: &[SocketAddr]) {
        let servers = |nodes: &[SocketAddr]| {
            let line = |node| format!("server {node} fail_timeout=1s;");
            nodes.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let config = [
            ("{folder}", self.folder.path().display().to_string()),
            ("{page}", page().display().to_string()),
            ("{front}", self.address.to_string()),
            ("{inside}", self.inside.to_string()),
            ("{chat}", servers(chat)),
            ("{sse}", servers(sse)),
        ];
        let config = config.iter().fold(
            include_str!("nginx.conf").to_owned(),
            |text, (key, value)| text.replace(key, value),
        );
        let file = self.folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("write the configuration");
        let nginx = Program::of_system("nginx", "nginx").arg("-p");
        let nginx = nginx.arg(self.folder.path()).args(["-e", "stderr", "-c"]);
        let mut process = nginx.arg(file).spawn();
        eventually!(Duration::from_secs(20), {
            let ended = process.ended();
            ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
            TcpStream::connect(self.address).await?;
            Ok(())
        });
        self.process = Some(process);
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the broadcast-sse ask for history.
    #[must_use]
    pub fn inside(&self) -> SocketAddr {
        self.inside
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a started nginx")
    }
}

/// The demo page.
fn page() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the workspace's root").join("client-demo")
}

/// An address that nobody listens on now: nginx cannot choose a port itself.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
}
