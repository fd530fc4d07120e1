use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use crate::router::{RouterLife, StartError};
use crate::state::State;

/// How long the router may take from start to its first answer.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How often the router's thread is looked at, and how often it is asked for an answer.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long a probe may take, and how many in a row may fail. Together far more than any pause of
/// a busy machine.
const PROBE_TIME: Duration = Duration::from_secs(5);
const PROBE_FAILURES: u32 = 3;

/// The pause before another try when the system refuses threads or descriptors.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the router again when it stops working, for ever. Its clients are cut off then and
/// connect again; the listener stays.
pub(crate) async fn watch_over(state: &State) {
    loop {
        let router = Arc::clone(&state.router.borrow());
        let why = stopped(&router, state).await;
        state.answers.store(false, Relaxed);
        error!(
            why,
            "the broker stopped working; starting it again. Nothing stored is lost: the services \
             publish what was not confirmed"
        );
        drop(router);
        replace(state).await;
    }
}

pub(crate) async fn replace(state: &State) {
    replace_by(state, || RouterLife::start(&state.config)).await;
}

/// Tries until the system grants the threads.
pub(crate) async fn replace_by(
    state: &State,
    mut start: impl FnMut() -> Result<RouterLife, StartError>,
) {
    let mut told = false;
    loop {
        match start() {
            Ok(router) => {
                state.shared.guard.forget_names();
                state.router.send_replace(Arc::new(router));
                state.restarts.fetch_add(1, Relaxed);
                state.answers.store(true, Relaxed);
                info!("the broker works again");
                return;
            }
            Err(error) => {
                if !told {
                    told = true;
                    warn!(%error, "the broker cannot be started again yet");
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// Waits until the router no longer works, and says why.
async fn stopped(router: &RouterLife, state: &State) -> String {
    tokio::select! {
        () = ended(router) => "its router panicked; the message is above".to_owned(),
        why = unresponsive(router, state) => why,
    }
}

async fn ended(router: &RouterLife) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !router.is_gone() {
        look.tick().await;
    }
}

async fn unresponsive(router: &RouterLife, state: &State) -> String {
    let mut every = interval(PROBE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        every.tick().await;
        let asked = Instant::now();
        match router.answers(PROBE_TIME).await {
            Ok(()) => {
                failures = 0;
                state.answers.store(true, Relaxed);
            }
            Err(error) => {
                failures += 1;
                state.answers.store(false, Relaxed);
                let after = asked.elapsed();
                warn!(error, failures, ?after, "the broker did not answer a probe");
                if failures >= PROBE_FAILURES {
                    return format!("{failures} probes in a row: {error}");
                }
            }
        }
    }
}
