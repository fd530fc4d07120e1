//! A Docker engine that lives as long as the tests, and the images that they begin with.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::eventually;
use crate::dist::{Step, at, create_folder, output, shell, write};

/// As small as Debian gets: what the Dockerfile begins with.
const SMALL: &str = "debian:12-slim";
/// A server: systemd as process 1, and what ansible needs.
const SERVER: &str = "hark-test-server";
const OF_A_SERVER: &str =
    "ca-certificates,curl,dbus,iproute2,python3,python3-apt,sudo,systemd,systemd-sysv";

/// What a server's systemd may mount.
#[derive(Clone, Copy)]
pub(super) enum Mounting {
    /// Everything.
    Allowed,
    /// Nothing in namespaces of its own, as in many containers: units that need some end with
    /// 226/NAMESPACE.
    NoNamespaces,
}

/// A filter of system calls (for runc): no mount(2) with `MS_SLAVE`, which a new namespace begins
/// with.
const NO_NAMESPACES: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"],
"action": "SCMP_ACT_ERRNO", "args": [{"index": 3, "value": 524288, "valueTwo": 524288,
"op": "SCMP_CMP_MASKED_EQ"}]}]}"#;

pub(super) struct Engine {
    dockerd: Child,
    socket: String,
    folder: PathBuf,
}

impl Engine {
    /// Starts dockerd with everything that it writes in `folder`, and makes the images.
    pub(super) fn start(folder: &Path) -> Step<Self> {
        let mut usual = Command::new("docker");
        if output(usual.args(["--host", "unix:///var/run/docker.sock", "info"])).is_ok() {
            // Both would use the bridge docker0 and the same firewall rules.
            return Err(
                "a Docker engine runs here: systemctl stop docker docker.socket".to_owned(),
            );
        }
        create_folder(folder)?;
        let log = folder.join("log");
        let log = File::create(&log).map_err(|error| at(&log, &error))?;
        let socket = format!("unix://{}", folder.join("socket").display());
        let mut dockerd = Command::new("dockerd");
        dockerd
            .args(["--host", &socket, "--data-root"])
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("run"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let started = dockerd.spawn();
        let engine = Self {
            dockerd: started.map_err(|error| format!("cannot start dockerd: {error}"))?,
            socket,
            folder: folder.to_owned(),
        };
        eventually(|| output(engine.docker().arg("info")))
            .map_err(|why| format!("{why}; see {}", folder.join("log").display()))?;
        engine.debian(SMALL, "")?;
        engine.debian(SERVER, OF_A_SERVER)?;
        Ok(engine)
    }

    fn debian(&self, image: &str, packages: &str) -> Step {
        let folder = self.folder.join("debian");
        let mut make = Command::new("debootstrap");
        make.arg("--variant=minbase");
        if !packages.is_empty() {
            make.arg(format!("--include={packages}"));
        }
        shell(make.arg("bookworm").arg(&folder))?;
        let archive = self.folder.join("debian.tar");
        let mut pack = Command::new("tar");
        shell(
            pack.arg("-cf")
                .arg(&archive)
                .arg("-C")
                .arg(&folder)
                .arg("."),
        )?;
        output(self.docker().arg("import").arg(&archive).arg(image))?;
        std::fs::remove_file(&archive).map_err(|error| at(&archive, &error))?;
        std::fs::remove_dir_all(&folder).map_err(|error| at(&folder, &error))
    }

    /// A `docker` that talks to this engine.
    pub(super) fn docker(&self) -> Command {
        self.command("docker")
    }

    /// A program that talks to this engine.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", &self.socket)
            .stdin(Stdio::null());
        // The builder that Debian's engine has without a plug-in.
        command.env("DOCKER_BUILDKIT", "0");
        command.env("COMPOSE_DOCKER_CLI_BUILD", "0");
        command
    }

    /// Starts a server: a container in which systemd is process 1, with control groups of its own.
    /// It may mount, as a real server's root may, unless `mounting` says otherwise.
    pub(super) fn server(&self, name: &str, publish: &[&str], mounting: Mounting) -> Step {
        let profile = match mounting {
            Mounting::Allowed => "unconfined".to_owned(),
            Mounting::NoNamespaces => {
                let path = self.folder.join("no-namespaces.json");
                write(&path, NO_NAMESPACES)?;
                path.display().to_string()
            }
        };
        let mut run = self.docker();
        run.args(["run", "--detach", "--name", name, "--hostname", name]);
        run.args(["--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined"]);
        run.arg(format!("--security-opt=seccomp={profile}"));
        run.args(["--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock"]);
        for port in publish {
            run.arg(format!("--publish=127.0.0.1:{port}"));
        }
        let begin = "for groups in /sys/fs/cgroup /sys/fs/cgroup/systemd; do \
             mountpoint -q $groups && mount -o remount,bind,rw $groups; done; \
             exec /lib/systemd/systemd";
        output(run.args([SERVER, "sh", "-c", begin]))?;
        // Without namespaces, units of Debian's own fail as well.
        let up = "systemctl is-system-running | grep -E 'running|degraded'";
        eventually(|| self.inside(name, up))?;
        Ok(())
    }

    /// Runs a line of shell in a container; what it prints.
    pub(super) fn inside(&self, name: &str, line: &str) -> Step<String> {
        output(self.docker().args(["exec", name, "sh", "-c", line]))
            .map_err(|why| format!("{name}: {line}: {why}"))
    }

    /// Waits until a container's health check says so; fails at once when it cannot stay up, with what
    /// it and its check have said last.
    pub(super) fn is_healthy(&self, name: &str) -> Step {
        let inspect =
            |format: &str| output(self.docker().args(["inspect", "--format", format, name]));
        let health = eventually(|| {
            let health =
                inspect("{{.State.Health.Status}}, started {{.RestartCount}} times again")?;
            super::ensure(!health.starts_with("starting, started 0 "), || {
                health.clone()
            })?;
            Ok(health)
        });
        let health = health.unwrap_or_else(|why| why);
        if health.starts_with("healthy") {
            return Ok(());
        }
        let checked = inspect("{{range .State.Health.Log}}{{.Output}}{{end}}").unwrap_or_default();
        let mut logs = self.docker();
        let logs = logs.args(["logs", "--tail", "20", name]).output();
        let said = logs.map(|logs| {
            let (out, err) = (logs.stdout, logs.stderr);
            [out, err]
                .map(|said| String::from_utf8_lossy(&said).into_owned())
                .concat()
        });
        let said = said.unwrap_or_else(|error| error.to_string());
        Err(format!(
            "{name} is {health}; its check says:\n{checked}\nand itself:\n{said}"
        ))
    }

    /// All of them, also those of a test that failed.
    pub(super) fn remove_containers(&self) {
        let all = output(self.docker().args(["ps", "--all", "--quiet"])).unwrap_or_default();
        for container in all.lines() {
            if let Err(why) = output(
                self.docker()
                    .args(["rm", "--force", "--volumes", container]),
            ) {
                println!("{why}");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.remove_containers();
        let mut stop = Command::new("kill");
        if let Err(why) = output(stop.arg(self.dockerd.id().to_string())) {
            println!("{why}");
        }
        // Nothing can be done about a process that cannot be waited for.
        let _status = self.dockerd.wait();
        // A container that had the network of the host leaves it mounted there.
        let network = self.folder.join("run/netns/default");
        if network.exists()
            && let Err(why) = output(Command::new("umount").arg(&network))
        {
            println!("{why}");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            println!("{}", at(&self.folder, &error));
        }
    }
}
