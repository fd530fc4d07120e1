use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::{Process, Program, ensure, eventually};

/// A real mosquitto (Debian package `mosquitto`) on a port of its own, set up
/// as a production broker of Hark is. Dropping it kills it.
pub struct Mosquitto {
    folder: TempDir,
    address: SocketAddr,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Panics
    /// When mosquitto is not installed or does not start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // mosquitto cannot report a port it chose itself.
        let address = free_address().await;
        let mut broker = Self {
            folder,
            address,
            process: None,
        };
        broker.restart().await;
        broker
    }

    /// Where it listens; the same after [`restart`](Self::restart).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as `mqtt://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it was killed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running broker").pid()
    }

    /// Kills it, as a crash would.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Kills it if it runs, and starts it on the same port.
    ///
    /// # Panics
    /// When it does not accept connections within 10 seconds.
    pub async fn restart(&mut self) {
        self.kill().await;
        let mut config = String::new();
        let settings: [(&str, &dyn std::fmt::Display); 7] = [
            ("listener", &format!("{} 127.0.0.1", self.address.port())),
            ("allow_anonymous", &true),
            ("persistence", &false),
            ("set_tcp_nodelay", &true),
            // Its defaults of 20 and 1000 make a busy subscriber lose messages.
            ("max_inflight_messages", &1000),
            ("max_queued_messages", &1_000_000),
            // Started by root it would change to a user who may not read the temporary folder.
            ("user", &"root"),
        ];
        for (key, value) in settings {
            writeln!(config, "{key} {value}").expect("a string grows");
        }
        let file = self.folder.path().join("mosquitto.conf");
        std::fs::write(&file, config).expect("write the configuration");
        let program = Program::of_system("mosquitto", "mosquitto")
            .arg("-c")
            .arg(&file);
        let mut process = program.in_folder(self.folder.path()).spawn();
        eventually!(Duration::from_secs(10), {
            let ended = process.ended();
            ensure!(
                ended.is_none(),
                "it ended with {ended:?}: {}",
                process.stderr()
            );
            TcpStream::connect(self.address).await?;
            Ok(())
        });
        self.process = Some(process);
    }
}

/// An address of 127.0.0.1 that nobody listens on now. For programs that cannot
/// choose a port themselves: between this call and theirs someone may take it,
/// which is unlikely, as the kernel hands ports out in turn.
async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt_publish;

    #[tokio::test]
    async fn it_takes_a_message_before_and_after_a_restart() {
        let mut broker = Mosquitto::start().await;
        mqtt_publish(broker.address(), "chat/x", b"hello").await;
        broker.restart().await;
        mqtt_publish(broker.address(), "chat/x", &[b'x'; 70_000]).await;
    }
}
