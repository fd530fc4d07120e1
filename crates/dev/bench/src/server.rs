//! Starting and stopping the servers that are measured.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, Sample};

/// How long a server may take to start, and to stop before it is killed.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(5);

/// A command line that will run on certain processors.
pub(crate) struct Launch {
    program: PathBuf,
    command: Command,
}

/// A running program; dropped, it is stopped.
pub(crate) struct Server {
    name: String,
    /// How it was started, with its environment.
    pub(crate) command_line: String,
    child: Child,
    /// Its own pid, and those of the processes that it started.
    pids: Vec<u32>,
    /// What it printed until it was ready.
    said: Vec<String>,
}

impl Launch {
    /// taskset becomes the program, so that its pid is the program's.
    pub(crate) fn new(program: &Path, processors: &[usize]) -> Self {
        Self::behind(program, processors, &[])
    }

    /// At the lowest priority: it gets the time that the other processes leave.
    pub(crate) fn last(program: &Path, processors: &[usize]) -> Self {
        Self::behind(program, processors, &["nice", "-n", "19"])
    }

    /// `before` becomes the program as well.
    fn behind(program: &Path, processors: &[usize], before: &[&str]) -> Self {
        let processors: Vec<String> = processors.iter().map(ToString::to_string).collect();
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &processors.join(",")]);
        command.args(before).arg(program);
        Self {
            program: program.to_owned(),
            command,
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts it and waits for the line `ready` on its standard output.
    pub(crate) fn until_ready(self, folder: &Path) -> io::Result<Server> {
        let mut server = self.spawn(folder, Stdio::piped())?;
        let output = server.child.stdout.take().expect("it was piped just now");
        // It says nothing further, so nothing can fill the pipe when it is no longer read.
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "ready" {
                return Ok(server);
            }
            server.said.push(line);
        }
        Err(server.failure(folder, "ended before it was ready"))
    }

    /// Starts it and waits until it answers a connection. That it can be connected to is not
    /// enough: nginx listens before it has a worker, whose time would not be counted.
    pub(crate) fn until_it_answers(self, folder: &Path, address: SocketAddr) -> io::Result<Server> {
        let mut server = self.spawn(folder, Stdio::null())?;
        let begin = Instant::now();
        while !answers(address) {
            if server.child.try_wait()?.is_some() {
                return Err(server.failure(folder, "ended before it listened"));
            }
            if begin.elapsed() > START {
                return Err(server.failure(folder, "does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server.pids.extend(process::children(server.child.id())?);
        Ok(server)
    }

    fn spawn(mut self, folder: &Path, output: Stdio) -> io::Result<Server> {
        let name = self.program.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let log = File::create(log_of(folder, &name))?;
        let command_line = command_line(&self.command);
        self.command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = self.command.spawn().map_err(|error| {
            let program = self.command.get_program().display();
            io::Error::other(format!("cannot start {program}: {error}"))
        })?;
        Ok(Server {
            name,
            command_line,
            pids: vec![child.id()],
            child,
            said: Vec::new(),
        })
    }
}

/// As one would type it; programs without their folder.
fn command_line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        Some(format!("{name}={value}"))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let word = Path::new(word);
        let name = word.file_name().filter(|_| word.is_file());
        let word = name.unwrap_or(word.as_os_str()).to_string_lossy();
        if word.contains(char::is_whitespace) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Whether it says anything to this request, or hangs up: a broker does that.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<usize> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        socket.read(&mut [0; 1])
    };
    match ask() {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

impl Server {
    /// The address behind this word (`sse http://127.0.0.1:8081`) of what it printed.
    pub(crate) fn url(&self, word: &str) -> io::Result<&str> {
        let url = self.said.iter().find_map(|line| {
            let (first, url) = line.split_once(' ')?;
            (first == word).then_some(url.trim_end_matches('/'))
        });
        url.ok_or_else(|| io::Error::other(format!("{} printed no `{word} …`", self.name)))
    }

    pub(crate) fn address(&self, word: &str) -> io::Result<SocketAddr> {
        let url = self.url(word)?;
        let address = url.split_once("://").map_or(url, |(_, address)| address);
        address.parse().map_err(io::Error::other)
    }

    /// One sample for each of its processes, always in the same order.
    pub(crate) fn samples(&self) -> io::Result<Vec<Sample>> {
        self.pids.iter().map(|pid| Sample::of(*pid)).collect()
    }

    fn failure(&self, folder: &Path, what: &str) -> io::Error {
        // Without its log `what` is told all the same.
        let log = std::fs::read_to_string(log_of(folder, &self.name)).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(5).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        io::Error::other(format!("{} {what}: {}", self.name, end.join(" / ")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it has ended already.
            kill_process(pid, Signal::TERM).ok();
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begin.elapsed() > STOP {
                // An error means that it has ended in the meantime: the next look finds it.
                self.child.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A port of loopback that was free a moment ago, for servers that cannot say
/// which one they took.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
