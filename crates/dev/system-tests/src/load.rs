use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use test_kit::{Ledger, Listener, Recording, ensure, eventually};
use tokio::task::JoinSet;

use crate::{Posted, Sender, new_channel};

const CHANNELS: usize = 20;
const LISTENERS_EACH: usize = 3;
const SENDERS_EACH: usize = 5;
const POSTS_EACH: usize = 50;
const POSTS_A_CHANNEL: usize = SENDERS_EACH * POSTS_EACH;

/// Senders and listeners of several channels, while the test breaks something:
/// 20 channels with 3 listeners each, and 5,000 posts.
pub struct Load {
    recordings: Vec<(String, Recording)>,
    taken: Arc<AtomicUsize>,
    senders: JoinSet<(String, Vec<Posted>)>,
}

impl Load {
    /// How many posts there will be.
    pub const POSTS: usize = CHANNELS * POSTS_A_CHANNEL;

    /// Waits until all listeners are ready, then begins to post. `stream` is the
    /// URL of the stream of a channel.
    ///
    /// # Panics
    /// When a listener does not become ready.
    pub async fn start(sender: &Sender, stream: impl Fn(&str) -> String) -> Self {
        let channels: Vec<String> = (0..CHANNELS).map(|_| new_channel()).collect();
        let mut recordings = Vec::new();
        for channel in channels
            .iter()
            .flat_map(|channel| [channel; LISTENERS_EACH])
        {
            let recording = Recording::start(Listener::new(stream(channel)));
            recordings.push((channel.clone(), recording));
        }
        for (_, recording) in &recordings {
            recording
                .wait_for(Duration::from_secs(20), "ready", 1)
                .await;
        }
        let taken = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for channel in channels.iter().flat_map(|channel| [channel; SENDERS_EACH]) {
            let (sender, channel, taken) = (sender.clone(), channel.clone(), Arc::clone(&taken));
            senders.spawn(async move {
                let mut all = Vec::new();
                for number in 0..POSTS_EACH {
                    all.push(
                        sender
                            .post_until_taken(&channel, &format!("post {number}"))
                            .await,
                    );
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                (channel, all)
            });
        }
        Self {
            recordings,
            taken,
            senders,
        }
    }

    /// Waits until this many posts have been answered with 2xx.
    ///
    /// # Panics
    /// When that takes longer than two minutes.
    pub async fn wait_for_posts(&self, count: usize) {
        eventually!(Duration::from_secs(120), {
            let now = self.taken.load(Ordering::Relaxed);
            ensure!(now >= count, "{now} of {count} posts are taken");
            Ok(())
        });
    }

    /// Waits until everything is posted and delivered: every listener has each
    /// post that was answered with 2xx exactly once, in order, as it was answered.
    ///
    /// # Panics
    /// When one has not.
    pub async fn verify(mut self) {
        let mut answered: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        while let Some(sent) = self.senders.join_next().await {
            let (channel, all) = sent.expect("a sender does not fail");
            let answered = answered.entry(channel).or_default();
            answered.extend(all.into_iter().map(|posted| (posted.seq(), posted.line)));
        }
        for (channel, recording) in &self.recordings {
            recording
                .wait_for(Duration::from_secs(60), "message", POSTS_A_CHANNEL)
                .await;
            let ledger = Ledger::default().starting_after(channel, 0);
            let ledger = ledger.with(&recording.events()).unwrap();
            assert_eq!(ledger.gaps(channel), []);
            let delivered = ledger.delivered(channel).iter();
            let got: Vec<&str> = delivered.map(|message| message.line.as_str()).collect();
            // No number was given to two posts, and no post has two numbers.
            let sent: Vec<&str> = answered[channel].values().map(String::as_str).collect();
            assert_eq!(sent.len(), POSTS_A_CHANNEL);
            assert_eq!(got, sent);
        }
    }
}
