use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinSet;

use crate::{Event, Listener, ensure, eventually};

#[derive(Default)]
struct Tape {
    events: Vec<Event>,
    ended: Option<String>,
}

/// A [`Listener`] that listens in the background, reconnects as a browser does
/// and keeps everything it gets; dropping it disconnects.
pub struct Recording {
    tape: Arc<Mutex<Tape>>,
    connects: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Recording {
    /// Begins to listen.
    #[must_use]
    pub fn start(mut listener: Listener) -> Self {
        let tape = Arc::new(Mutex::new(Tape::default()));
        let (shared, connects) = (Arc::clone(&tape), listener.counter());
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let next = listener.next().await;
                let mut tape = lock(&shared);
                match next {
                    Ok(event) => tape.events.push(event),
                    Err(gave_up) => {
                        tape.ended = Some(gave_up.to_string());
                        return;
                    }
                }
            }
        });
        Self {
            tape,
            connects,
            _task: task,
        }
    }

    /// Listens at `url` and waits for the stream's `ready`.
    ///
    /// # Panics
    /// When it does not come within 10 seconds.
    pub async fn ready(url: impl Into<String>) -> Self {
        let recording = Self::start(Listener::new(url));
        recording
            .wait_for(Duration::from_secs(10), "ready", 1)
            .await;
        recording
    }

    /// Everything received so far, `ping` events left out.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.read(|events| {
            events
                .iter()
                .filter(|event| event.event != "ping")
                .cloned()
                .collect()
        })
    }

    /// Looks at everything received so far without copying it.
    pub fn read<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&lock(&self.tape).events)
    }

    /// How many events of this kind have been received.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.read(|events| events.iter().filter(|event| event.event == kind).count())
    }

    /// How often it has connected.
    #[must_use]
    pub fn connects(&self) -> usize {
        self.connects.load(Relaxed)
    }

    /// Waits until at least `count` events of this kind have been received.
    ///
    /// # Panics
    /// When that takes longer than `within`, or where a browser would give up.
    pub async fn wait_for(&self, within: Duration, kind: &str, count: usize) {
        eventually!(within, {
            if let Some(ended) = &lock(&self.tape).ended {
                panic!("the listener gave up: {ended}");
            }
            let now = self.count(kind);
            ensure!(
                now >= count,
                "{now} of {count} `{kind}` events, {} connects",
                self.connects()
            );
            Ok(())
        });
    }
}

fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock()
}
