use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use test_kit::{Process, Program, ensure, eventually, free_address};
use tokio::net::TcpStream;

/// nginx (Debian package `nginx`), which spreads posts and streams over the nodes.
pub struct Front {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Front {
    /// Starts one in front of these nodes.
    pub(super) async fn start(chat: &[SocketAddr], sse: &[SocketAddr]) -> Self {
        let servers = |nodes: &[SocketAddr]| {
            let line = |node| format!("server {node} fail_timeout=1s;");
            nodes.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let config = [
            ("{page}", page().display().to_string()),
            ("{chat}", servers(chat)),
            ("{sse}", servers(sse)),
        ];
        let config = config.iter().fold(
            include_str!("nginx.conf").to_owned(),
            |text, (key, value)| text.replace(key, value),
        );
        Self::with(&config).await
    }

    /// Starts one with this configuration, in which `{folder}` and `{front}` stand for a folder of
    /// its own and for its address.
    ///
    /// # Panics
    /// When nginx is not installed or does not start.
    pub async fn with(config: &str) -> Self {
        let (address, folder) = (free_address(), tempfile::tempdir());
        let folder = folder.expect("a temporary folder");
        let config = config
            .replace("{folder}", &folder.path().display().to_string())
            .replace("{front}", &address.to_string());
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("write the configuration");
        let nginx = Program::of_system("nginx", "nginx").arg("-p");
        let nginx = nginx.arg(folder.path()).args(["-e", "stderr", "-c"]);
        let mut process = nginx.arg(file).spawn();
        eventually!(Duration::from_secs(20), {
            let ended = process.ended();
            ensure!(ended.is_none(), "{ended:?}: {}", process.stderr());
            TcpStream::connect(address).await?;
            Ok(())
        });
        Self {
            address,
            process,
            _folder: folder,
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The demo page.
fn page() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    root.expect("the workspace's root").join("client-demo")
}
