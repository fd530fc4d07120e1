use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::free_address::free_address;
use crate::{Process, Program, ensure, eventually};

/// A real mosquitto (Debian package `mosquitto`) on a port of its own, set up
/// as a production broker of Hark is. Dropping it kills it.
pub struct Mosquitto {
    folder: TempDir,
    address: SocketAddr,
    process: Option<Process>,
    guard: Option<Certificates>,
    settings: String,
}

/// Only chat-service may publish, only broadcast-sse may read.
const ACCESS: &str =
    "user chat-service\ntopic write chat/+\nuser broadcast-sse\ntopic read chat/+\n";

/// The users of a guarded one.
const USERS: [&str; 2] = ["chat-service", "broadcast-sse"];

impl Mosquitto {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Panics
    /// When mosquitto is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts one with further lines of `mosquitto.conf`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(settings: &str) -> Self {
        let mut broker = Self::stopped(settings);
        broker.restart().await;
        broker
    }

    /// Starts one that is spoken to over TLS, with log-in: the user
    /// `chat-service` may publish on `chat/+` and the user `broadcast-sse` may
    /// read there, both with the [password](Self::PASSWORD). As ever, it drops
    /// silently what the access rules do not allow.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_guarded() -> Self {
        let mut broker = Self::stopped("");
        let folder = broker.folder.path();
        broker.guard = Some(Certificates::write(folder));
        std::fs::write(folder.join("acl"), ACCESS).expect("write the access rules");
        let passwords = folder.join("passwords");
        std::fs::write(&passwords, "").expect("write the passwords");
        for user in USERS {
            let program = Program::of_system("mosquitto_passwd", "mosquitto").arg("-b");
            let program = program.arg(&passwords).args([user, Self::PASSWORD]);
            let finished = program.run(Duration::from_secs(30)).await;
            assert!(finished.status.success(), "{finished:?}");
        }
        broker.restart().await;
        broker
    }

    /// The password of a guarded one's users.
    pub const PASSWORD: &str = "hark-test";

    fn stopped(settings: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            // mosquitto cannot report a port it chose itself.
            address: free_address(),
            process: None,
            guard: None,
            settings: settings.to_owned(),
        }
    }

    /// The certificates of a guarded one.
    ///
    /// # Panics
    /// When it is not guarded.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.guard.as_ref().expect("a guarded broker")
    }

    /// Where it listens; the same after [`restart`](Self::restart).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as `mqtt://…`, or `mqtts://…` if it is guarded.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.guard.is_some() {
            "mqtts"
        } else {
            "mqtt"
        };
        format!("{scheme}://{}", self.address)
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
            ("allow_anonymous", &self.guard.is_none()),
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
        if let Some(certificates) = &self.guard {
            let folder = self.folder.path();
            for (key, path) in [
                ("certfile", certificates.server()),
                ("keyfile", certificates.key()),
                ("acl_file", &folder.join("acl")),
                ("password_file", &folder.join("passwords")),
            ] {
                writeln!(config, "{key} {}", path.display()).expect("a string grows");
            }
        }
        config += &self.settings;
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
