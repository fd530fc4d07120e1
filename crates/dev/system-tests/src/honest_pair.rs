use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;
use test_kit::{Event, Ledger, Listener, ensure, eventually};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::chain::stream_url;
use crate::{Sender, new_channel};

/// Between two posts: 50 a second, which is nothing for a server that is well.
const EVERY: Duration = Duration::from_millis(20);

/// How many posts a phase has at least, 2 seconds of them.
const PHASE: usize = 100;

/// How much slower the slowest hundredth may be beside an attack than without.
const SLOWER: f64 = 1.5;

/// What always passes: a machine that others use as well has such delays of its own.
const FLOOR: Duration = Duration::from_millis(100);

/// How long after its phase the last post may arrive before it counts as lost.
const LATE: Duration = Duration::from_secs(20);

/// One pair measures at a time: the attacks of others are not what it is to notice.
static TURN: Mutex<()> = Mutex::const_new(());

/// A sender and a listener of one channel, who do nothing wrong, beside whatever a stranger does
/// to the same servers. They must not notice it: each post is answered with 2xx and arrives once
/// and in its order, and the time from a post's turn until its arrival is what it was before.
///
/// ```no_run
/// # async fn example(chat_url: &str, sse_url: &str) {
/// let mut pair = system_tests::HonestPair::start(chat_url, sse_url).await;
/// pair.quiet().await;
/// pair.beside(async { /* the attack */ }).await;
/// # }
/// ```
pub struct HonestPair {
    sender: Sender,
    channel: String,
    /// Everything that was posted so far, as it was answered.
    posted: Vec<String>,
    heard: watch::Receiver<Vec<(Instant, Event)>>,
    quiet: Option<Latencies>,
    _turn: MutexGuard<'static, ()>,
    _listening: JoinSet<()>,
}

impl HonestPair {
    /// A pair in a channel of its own, whose listener is ready. The URLs are those of a
    /// chat-service and a broadcast-sse.
    ///
    /// # Panics
    /// When the listener does not become ready within 20 seconds.
    pub async fn start(chat_url: &str, sse_url: &str) -> Self {
        Self::of(Sender::to(chat_url), sse_url).await
    }

    /// The same, with a sender of one's own. Waits while there is another pair in this process.
    ///
    /// # Panics
    /// When the listener does not become ready within 20 seconds.
    pub async fn of(sender: Sender, sse_url: &str) -> Self {
        let turn = TURN.lock().await;
        let channel = new_channel();
        let mut listener = Listener::new(stream_url(sse_url, &[&channel]));
        listener.expect("ready", Duration::from_secs(20)).await;
        let (events, heard) = watch::channel(Vec::new());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            // A stream that was ended resumes: late, but nothing may be missing.
            while let Ok(event) = listener.next().await {
                events.send_modify(|events| events.push((Instant::now(), event)));
            }
        });
        Self {
            sender,
            channel,
            posted: Vec::new(),
            heard,
            quiet: None,
            _turn: turn,
            _listening: listening,
        }
    }

    /// Measures 2 seconds in which nobody does anything else.
    ///
    /// # Panics
    /// When a post is refused, lost, doubled or out of order.
    pub async fn quiet(&mut self) {
        let ((), latencies) = self.measure(async {}).await;
        self.quiet = Some(latencies);
    }

    /// Runs an attack, and the pair beside it until the attack has ended, for 2 seconds at least.
    ///
    /// # Panics
    /// When a post is refused, lost, doubled or out of order, or when the 99th percentile of their
    /// latency is over both 100 ms and 1.5 times that of the [`quiet`](Self::quiet) phase.
    pub async fn beside<T>(&mut self, attack: impl Future<Output = T>) -> T {
        let (result, attacked) = self.measure(attack).await;
        let quiet = self.quiet.as_ref().expect("quiet() comes first");
        println!("quiet:      {quiet}\nbeside it:  {attacked}");
        let bound = quiet.percentile(99).mul_f64(SLOWER).max(FLOOR);
        assert!(
            attacked.percentile(99) <= bound,
            "the attack is felt, its p99 is over {bound:?}\nquiet:     {quiet}\nbeside it: {attacked}"
        );
        result
    }

    /// The number of the oldest message that the store still has of their channel.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub async fn first_kept(&self) -> u64 {
        let page = self.sender.page(&self.channel, 0).await;
        page["first"].as_u64().expect("a number")
    }

    /// Posts until `beside` has ended, and waits until all of it has arrived.
    async fn measure<T>(&mut self, beside: impl Future<Output = T>) -> (T, Latencies) {
        let before = self.posted.len();
        let ended = Arc::new(AtomicBool::new(false));
        let mut posting = JoinSet::new();
        posting.spawn(post(
            self.sender.clone(),
            self.channel.clone(),
            Arc::clone(&ended),
        ));
        let result = beside.await;
        ended.store(true, Relaxed);
        let posts = posting.join_next().await.expect("one task");
        let posts = posts.expect("posting does not panic");
        let refused: Vec<_> = posts
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().err())
            .collect();
        assert!(
            refused.is_empty(),
            "{} of {} honest posts were refused, the first: {}",
            refused.len(),
            posts.len(),
            refused[0]
        );
        let due: Vec<Instant> = posts.iter().map(|(due, _)| *due).collect();
        self.posted
            .extend(posts.into_iter().filter_map(|(_, answer)| answer.ok()));
        let arrived = self.arrivals().await;
        let latencies = arrived[before..].iter().zip(due);
        let latencies = latencies.map(|(arrived, due)| arrived.saturating_duration_since(due));
        (result, Latencies::of(latencies))
    }

    /// When each of the posts has arrived; all of them, once and in their order.
    async fn arrivals(&self) -> Vec<Instant> {
        eventually!(LATE, {
            let messages = self.messages().len();
            ensure!(
                messages >= self.posted.len(),
                "{messages} of {} posts have arrived",
                self.posted.len()
            );
            Ok(())
        });
        let events: Vec<Event> = self
            .heard
            .borrow()
            .iter()
            .map(|(_, event)| event.clone())
            .collect();
        let ledger = Ledger::default().starting_after(&self.channel, 0);
        let ledger = ledger.with(&events).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(ledger.gaps(&self.channel), []);
        let messages = self.messages();
        let lines: Vec<&String> = messages.iter().map(|(_, line)| line).collect();
        assert!(
            lines.iter().copied().eq(&self.posted),
            "what arrived is not what was posted"
        );
        messages.into_iter().map(|(at, _)| at).collect()
    }

    fn messages(&self) -> Vec<(Instant, String)> {
        let heard = self.heard.borrow();
        let messages = heard.iter().filter(|(_, event)| event.event == "message");
        messages
            .map(|(at, event)| (*at, event.data.clone()))
            .collect()
    }
}

/// When a post was due, and its event as it was answered, or why it was not taken.
type Post = (Instant, Result<String, String>);

/// One post after the other, each at its turn or, after a slow one, as soon as can be; the time
/// counts from the turn, so that a server that hangs is not asked less often.
async fn post(sender: Sender, channel: String, ended: Arc<AtomicBool>) -> Vec<Post> {
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut posts = Vec::new();
    while posts.len() < PHASE || !ended.load(Relaxed) {
        let due = turns.tick().await;
        let text = format!("honest {}", posts.len());
        // With an id, as a sender should that may have to try again.
        let body = json!({ "text": text, "id": Uuid::now_v7() });
        let answer = match sender.try_post(&channel, &body).await {
            Ok(answer) if answer.status().is_success() => answer.text().await,
            Ok(answer) => {
                let status = answer.status();
                let body = answer.text().await.unwrap_or_default();
                posts.push((due, Err(format!("{status} {body}"))));
                continue;
            }
            Err(error) => Err(error),
        };
        let line = answer.map(|line| line.trim_end().to_owned());
        posts.push((due, line.map_err(|error| format!("{error:?}"))));
    }
    posts
}

/// Times from posting to arrival, in ascending order.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn of(latencies: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = latencies.collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// The time that this many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} posts", self.0.len())?;
        for percent in [50, 90, 95, 99, 100] {
            write!(f, ", p{percent} {:.1?}", self.percentile(percent))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis));
        assert_eq!(latencies.percentile(50), Duration::from_millis(100));
        assert_eq!(latencies.percentile(99), Duration::from_millis(198));
        assert_eq!(latencies.percentile(100), Duration::from_millis(200));
    }
}
