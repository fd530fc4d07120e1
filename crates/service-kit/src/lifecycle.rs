//! Starts and stops the tasks of a process. A soft shutdown lets work finish, a hard one does not, and
//! a task that dies is always noticed.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long tasks get to notice the hard token before the process goes on without them.
const AFTER_HARD: Duration = Duration::from_secs(2);

/// The lifecycle of a process, or of one stage of it. Clones share it.
///
/// Tasks watch [`soft`](Self::soft) to finish what they have begun, and [`hard`](Self::hard) to stop
/// at once. Each is cancelled once and for good.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    soft: CancellationToken,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The soft token of the first stage. A dead task of any stage cancels it.
    process: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    dead: Mutex<Option<DeadTask>>,
}

/// A task ended that should have run as long as the process.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the task {name:?} {}", if *.panicked { "panicked; its message is in the log" } else { "ended before shutdown" })]
pub struct DeadTask {
    /// The name given to [`Lifecycle::spawn`].
    pub name: &'static str,
    /// Whether it panicked; if not, it returned.
    pub panicked: bool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A lifecycle that lasts until [`shutdown`](Self::shutdown), a signal or a dead task.
    pub fn new() -> Self {
        let process = CancellationToken::new();
        Self {
            soft: process.clone(),
            shared: Arc::new(Shared {
                process,
                hard: CancellationToken::new(),
                tasks: TaskTracker::new(),
                dead: Mutex::new(None),
            }),
        }
    }

    /// A later stage of the same lifecycle, for tasks that others still need while they finish (a
    /// broker, a publisher). Its soft token is cancelled by its own [`shutdown`](Self::shutdown) or by
    /// the hard token. [`wait`](Self::wait) of the first stage also waits for the tasks of this one.
    #[must_use]
    pub fn later_stage(&self) -> Self {
        Self {
            soft: self.shared.hard.child_token(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Cancelled when shutdown begins: finish what you have begun, begin nothing new.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when the time for a soft shutdown is over: drop everything.
    pub fn hard(&self) -> CancellationToken {
        self.shared.hard.clone()
    }

    /// Whether shutdown has begun.
    pub fn is_shutting_down(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Begins the soft shutdown of this stage. Calling it again has no effect.
    pub fn shutdown(&self) {
        self.soft.cancel();
    }

    /// Runs a task that must run until shutdown. If it panics or returns earlier, the process shuts
    /// down and [`wait`](Self::wait) reports the task.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = TaskGuard {
            name,
            life: self.clone(),
        };
        self.shared.tasks.spawn(async move {
            // Moved in, so that it is dropped with the task, even if the task panics.
            let _guard = guard;
            task.await;
        });
    }

    /// Runs a task that may end at any time, such as one per connection. Shutdown waits for it.
    pub fn spawn_transient<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.tasks.spawn(task);
    }

    /// Waits for shutdown to begin and then for all tasks to end. The hard token is cancelled if that
    /// takes longer than `hard_after`. Call it once, from the task that outlives the others.
    ///
    /// # Errors
    /// [`DeadTask`] when a task spawned with [`spawn`](Self::spawn) died first.
    pub async fn wait(&self, hard_after: Duration) -> Result<(), DeadTask> {
        self.soft.cancelled().await;
        let shared = &self.shared;
        shared.tasks.close();
        tokio::select! {
            () = shared.tasks.wait() => {}
            () = shared.hard.cancelled() => {}
            () = tokio::time::sleep(hard_after) => {
                warn!(open_tasks = shared.tasks.len(), "the time for a soft shutdown is over");
            }
        }
        shared.hard.cancel();
        if tokio::time::timeout(AFTER_HARD, shared.tasks.wait())
            .await
            .is_err()
        {
            warn!(
                open_tasks = shared.tasks.len(),
                "ending without waiting for the remaining tasks"
            );
        }
        match shared.dead().take() {
            Some(dead) => Err(dead),
            None => Ok(()),
        }
    }

    /// From now on, the first SIGINT or SIGTERM begins the soft shutdown, and the second the hard one.
    ///
    /// # Errors
    /// When the system refuses the signal handlers.
    pub fn install_signals(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let life = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the task waits for signals until the process is gone; shutdown must not wait for it"
        )]
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    warn!("second signal: stopping at once");
                    life.shared.hard.cancel();
                } else {
                    info!("signal: shutting down");
                    life.shutdown();
                }
            }
        });
        Ok(())
    }
}

impl Shared {
    fn dead(&self) -> MutexGuard<'_, Option<DeadTask>> {
        self.dead.lock()
    }
}

/// Held by a task. It is dropped when the task ends, in whatever way.
struct TaskGuard {
    name: &'static str,
    life: Lifecycle,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        if self.life.is_shutting_down() && !panicked {
            return;
        }
        let dead = DeadTask {
            name: self.name,
            panicked,
        };
        error!(task = self.name, panicked, "a task died; shutting down");
        self.life.shared.dead().get_or_insert(dead);
        self.life.shared.process.cancel();
        self.life.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn shutdown_waits_for_tasks() {
        let life = Lifecycle::new();
        let soft = life.soft();
        life.spawn("worker", async move { soft.cancelled().await });
        life.shutdown();
        assert_eq!(life.wait(LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn task_that_ends_early_stops_the_process() {
        let life = Lifecycle::new();
        life.spawn("worker", async {});
        assert_eq!(
            life.wait(LONG).await,
            Err(DeadTask {
                name: "worker",
                panicked: false
            })
        );
    }

    #[tokio::test]
    async fn task_that_panics_stops_the_process() {
        let life = Lifecycle::new();
        life.spawn("worker", async { panic!("on purpose") });
        assert_eq!(
            life.wait(LONG).await,
            Err(DeadTask {
                name: "worker",
                panicked: true
            })
        );
    }

    #[tokio::test]
    async fn dead_task_of_a_later_stage_stops_the_process() {
        let life = Lifecycle::new();
        life.later_stage().spawn("publisher", async {});
        let dead = life.wait(LONG).await.unwrap_err();
        assert_eq!(dead.name, "publisher");
        assert!(dead.to_string().contains("ended before shutdown"));
    }

    #[tokio::test(start_paused = true)]
    async fn stubborn_task_is_cut_off() {
        let life = Lifecycle::new();
        let hard = life.hard();
        life.spawn_transient(async move { hard.cancelled().await });
        life.shutdown();
        assert_eq!(life.wait(LONG).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn later_stage_outlives_the_first() {
        let life = Lifecycle::new();
        let later = life.later_stage();
        life.shutdown();
        assert!(!later.is_shutting_down());
        assert_eq!(life.wait(LONG).await, Ok(()));
        assert!(later.is_shutting_down(), "the hard token ends every stage");
    }
}
