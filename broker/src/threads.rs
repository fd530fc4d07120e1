//! Threads, which the system may refuse.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Some threads and the tasks on them. Dropping this ends the tasks and waits for nothing, so that
/// it may happen anywhere.
pub(crate) struct Threads {
    handle: Handle,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts so many of them.
    ///
    /// # Errors
    /// When the system refuses threads or descriptors.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(count).thread_name(name).enable_all();
        Self::build(&mut builder)
    }

    fn build(builder: &mut Builder) -> io::Result<Self> {
        let runtime = refusable(|| builder.build())?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(task)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for them would block the caller's runtime.
            runtime.shutdown_background();
        }
    }
}

/// Starts something that panics when the system refuses it a thread, as runtimes of tokio and the
/// router of rumqttd do.
///
/// # Errors
/// What `start` says, or its panic.
pub(crate) fn refusable<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // What was half started is dropped, and nothing of it is seen again.
    catch_unwind(AssertUnwindSafe(start)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(io::Error::other(
            said.unwrap_or("a thread did not start").to_owned(),
        ))
    })
}

#[cfg(test)]
impl Threads {
    /// As [`start`](Self::start), with threads that no system grants: their stacks are larger than
    /// what a process can address.
    pub(crate) fn refused() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        Self::build(builder.worker_threads(2).thread_stack_size(1 << 50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_threads_are_an_error() {
        let error = Threads::refused().err().unwrap().to_string();
        assert!(error.contains("thread"), "{error}");
    }

    #[tokio::test]
    async fn threads_can_be_dropped_anywhere() {
        drop(Threads::start("test", 2).unwrap());
    }
}
