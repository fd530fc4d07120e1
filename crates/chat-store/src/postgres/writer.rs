//! The task that writes: whatever arrived while one transaction committed goes into the next.
//!
//! While its connection is away it makes a new one, again and again. Posts wait for a moment, since
//! a server that restarts is soon back, and then fail at once until it is there.

mod arrival;
mod attempt;
mod link;
mod rescue;
mod store;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use service_kit::log_limit::Working;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::{
    attempt::Undecided,
    link::{Connected, Down, Link},
};
use super::{
    batch::to_stored_number,
    connection::{Connector, NoSession},
    epochs,
    failure::Failure,
    keeper::Chore,
    lane::{Lane, Owner},
    session::Session,
    shared::Shared,
};
use crate::{
    StoreError,
    expiry_clock::now,
    key_shares::KeyShares,
    queue::{BATCH_BYTES, Post, Reply, answer},
};

/// How soon a watermark that moved is saved if no batch takes it along: others ask the database
/// what is not yet published.
const SAVE_AFTER: Duration = Duration::from_millis(250);
/// How long a success of writing is believed.
const FRESH: Duration = Duration::from_secs(10);
/// Bytes that a probe asks of a disk that was full: room for some of the largest messages.
const ROOM: i32 = 256 << 10;

/// What the task is asked.
pub(super) enum Job {
    Append(Box<Post>),
    Check(Reply<()>),
    NewEpoch(Reply<()>),
    Close,
}

pub(super) struct Writer {
    connector: Connector,
    owner: Owner,
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    keeper: mpsc::Sender<Chore>,
    link: Link,
    lane: Option<Lane>,
    shares: KeyShares,
    /// The highest position that may have been seen of each lane of this process, on any server.
    seen: HashMap<i32, i64>,
    /// The batch that met the end of the last connection.
    pending: Option<Pending>,
    /// When the watermark was first seen to have moved since it was saved.
    moved_at: Option<Instant>,
    next_renewal: Instant,
    next_rescue: Instant,
    last_success: Option<Instant>,
    lacks_room: bool,
    /// What the log says of that.
    told: Working,
}

/// A batch whose connection was lost.
struct Pending {
    posts: Vec<Post>,
    /// What it would have become if COMMIT was sent, until that is judged; otherwise nothing was
    /// stored.
    undecided: Option<Undecided>,
}

impl Writer {
    /// With the connection it has its lane at once; without, it goes on trying.
    pub(super) async fn new(
        connector: Connector,
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedReceiver<Job>,
        keeper: mpsc::Sender<Chore>,
        first: Result<Session, NoSession>,
    ) -> Self {
        let now = Instant::now();
        let mut writer = Self {
            owner: Owner::new(&connector.options),
            shares: KeyShares::new(&connector.options.keys),
            connector,
            shared,
            jobs,
            keeper,
            link: Link::Down(Down::new()),
            lane: None,
            seen: HashMap::new(),
            pending: None,
            moved_at: None,
            next_renewal: now,
            next_rescue: now,
            last_success: None,
            lacks_room: false,
            told: Working::default(),
        };
        let first = match first {
            Ok(session) => Connected::prepare(session).await,
            Err(away) => Err(away),
        };
        writer.arrived(first).await;
        writer
    }

    /// Works until it is told to close, or nobody is left to ask.
    pub(super) async fn run(mut self) {
        loop {
            let patience = self.connector.options.timing.patience;
            let timer = self.next_timer(patience);
            let Self {
                link, jobs, shared, ..
            } = &mut self;
            let is_up = matches!(link, Link::Up(_));
            let (coming, takes_jobs) = match link {
                Link::Up(_) => (None, true),
                Link::Down(down) => {
                    let takes_jobs = down.since.elapsed() >= patience;
                    (down.coming.as_mut(), takes_jobs)
                }
            };
            let attempt = async {
                match coming {
                    Some(coming) => match coming.await {
                        Ok(arrived) => arrived,
                        Err(died) => Err(NoSession::Away(died.to_string())),
                    },
                    None => std::future::pending().await,
                }
            };
            // The timer first: posts must not keep it from what is due.
            tokio::select! {
                biased;
                arrived = attempt => self.arrived(arrived).await,
                () = sleep_until(timer) => self.chores(patience).await,
                () = shared.moved.notified(), if is_up => {
                    self.moved_at.get_or_insert_with(Instant::now);
                }
                job = jobs.recv(), if takes_jobs => match job {
                    None | Some(Job::Close) => break,
                    Some(job) => if self.work(job).await.is_break() { break },
                },
            }
        }
        self.finish().await;
    }

    /// A job, and those that came up while its batch was gathered.
    async fn work(&mut self, job: Job) -> std::ops::ControlFlow<()> {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Append(post) => {
                    let (batch, other) = self.gather(*post);
                    self.store(batch).await;
                    next = other;
                }
                Job::Check(reply) => {
                    let checked = self.check().await;
                    answer(reply, checked);
                }
                Job::NewEpoch(reply) => {
                    let begun = self.new_epoch().await;
                    answer(reply, begun);
                }
                Job::Close => return std::ops::ControlFlow::Break(()),
            }
            // The lost connection of one batch is no reason for the next job to fail.
            if let (Link::Down(_), Some(job)) = (&self.link, next.take()) {
                self.refuse(job);
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Takes what waits already, up to the bounds; the first other job ends the batch.
    fn gather(&mut self, first: Post) -> (Vec<Post>, Option<Job>) {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < self.connector.options.batch && bytes < BATCH_BYTES {
            match self.jobs.try_recv() {
                Ok(Job::Append(post)) => {
                    bytes += post.bytes();
                    batch.push(*post);
                }
                Ok(other) => return (batch, Some(other)),
                // Nothing waits; that the store is gone is found out by waiting.
                Err(_none) => break,
            }
        }
        (batch, None)
    }

    /// When something is due.
    fn next_timer(&self, patience: Duration) -> Instant {
        match &self.link {
            Link::Up(_) => {
                let save = self.moved_at.map(|moved| moved + SAVE_AFTER);
                let due = self.next_renewal.min(self.next_rescue);
                save.map_or(due, |save| save.min(due))
            }
            // Long after, when nothing waits any more, it is the attempts that go on.
            Link::Down(down) if self.pending.is_some() || down.since.elapsed() < patience => {
                down.since + patience
            }
            Link::Down(_) => Instant::now() + FRESH,
        }
    }

    async fn chores(&mut self, patience: Duration) {
        let now = Instant::now();
        match &self.link {
            Link::Up(_) => {
                let saving = self.moved_at.is_some_and(|moved| moved + SAVE_AFTER <= now);
                if saving || self.next_renewal <= now {
                    self.renew().await;
                }
                if self.next_rescue <= now {
                    self.rescue().await;
                }
            }
            Link::Down(down) if down.since + patience <= now => {
                let reason = down.reason.clone();
                self.give_up_pending(&reason);
            }
            Link::Down(_) => {}
        }
    }

    /// Prolongs the lease and saves the watermark, which also shows that the store can write.
    async fn renew(&mut self) {
        let (Link::Up(link), Some(lane)) = (&self.link, self.lane) else {
            return;
        };
        let mark = self.watermark(lane);
        let renew = &link.statements.renew_lane;
        let renewed = self
            .owner
            .renew(&link.session, renew, lane.number, mark)
            .await;
        match renewed {
            Ok(true) => self.note_saved(),
            Ok(false) => {
                self.change_lane().await;
            }
            Err(failure) => self.note_failure(&failure),
        }
    }

    /// What is published in a lane of ours.
    fn watermark(&self, lane: Lane) -> i64 {
        let ours = self.shared.published_to();
        let ours = ours.filter(|mark| i64::from(mark.lane()) == i64::from(lane.number));
        ours.map_or(lane.published_to, |mark| to_stored_number(mark.offset()))
    }

    fn note_saved(&mut self) {
        let now = Instant::now();
        self.moved_at = None;
        self.next_renewal = now + self.connector.options.timing.lease / 5;
        self.last_success = Some(now);
    }

    /// After a failure that was not the fault of a message: a lost connection is made anew.
    fn note_failure(&mut self, failure: &Failure) {
        match failure {
            Failure::Lost(reason) => self.go_down(reason),
            Failure::Refused(refusal) if refusal.is_lack_of_room() => {
                self.lacks_room = true;
                if self.told.tells(false) {
                    tracing::error!(reason = refusal.reason, "the store cannot write");
                }
            }
            other => tracing::warn!(reason = other.reason(), "the database refused a statement"),
        }
        // What failed is not tried again at once.
        let later = Instant::now() + self.connector.options.timing.lease / 5;
        self.next_renewal = self.next_renewal.max(later);
        self.moved_at = None;
    }

    fn go_down(&mut self, reason: &str) {
        if let Link::Down(_) = self.link {
            return;
        }
        tracing::warn!(
            database = self.connector.database,
            reason,
            "connection to PostgreSQL lost; connecting again"
        );
        self.link = Link::Down(Down::begin(&self.connector, reason));
    }

    /// Whether the store can write: known from the last write, or tried.
    async fn check(&mut self) -> Result<(), StoreError> {
        let Link::Up(link) = &self.link else {
            return Err(self.unavailable());
        };
        let fresh = self.last_success.is_some_and(|at| at.elapsed() < FRESH);
        if fresh && !self.lacks_room {
            return Ok(());
        }
        let mut probed = Ok(0);
        for size in self.lacks_room.then_some(ROOM).into_iter().chain([0]) {
            if probed.is_ok() {
                probed = link.session.execute(&link.statements.probe, &[&size]).await;
            }
        }
        match probed {
            Ok(_) => {
                self.succeeded();
                Ok(())
            }
            Err(failure) => {
                self.note_failure(&failure);
                Err(failure.to_error())
            }
        }
    }

    fn succeeded(&mut self) {
        self.last_success = Some(Instant::now());
        self.lacks_room = false;
        if self.told.tells(true) {
            tracing::info!("the store can write again");
        }
    }

    async fn new_epoch(&mut self) -> Result<(), StoreError> {
        let Link::Up(link) = &self.link else {
            return Err(self.unavailable());
        };
        let now = now(&self.connector.options.clock);
        let begun = epochs::new_epoch(&link.session, now).await;
        begun.map_err(|failure| {
            self.note_failure(&failure);
            failure.to_error()
        })
    }

    fn unavailable(&self) -> StoreError {
        match &self.link {
            Link::Down(down) => StoreError::unavailable(&down.reason),
            Link::Up(_) => StoreError::unavailable("the store has no lane"),
        }
    }

    /// Answers a job that came while there is no connection.
    fn refuse(&mut self, job: Job) {
        let error = self.unavailable();
        match job {
            Job::Append(post) => self.fail(vec![*post], &error),
            Job::Check(reply) => answer(reply, Err(error)),
            Job::NewEpoch(reply) => answer(reply, Err(error)),
            Job::Close => {}
        }
    }

    fn give_up_pending(&mut self, reason: &str) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let error = match pending.undecided {
            Some(undecided) => {
                self.see(undecided.lane, undecided.done.last_pos);
                StoreError::OutcomeUnknown {
                    reason: reason.to_owned(),
                }
            }
            None => StoreError::unavailable(reason),
        };
        self.fail(pending.posts, &error);
    }

    fn fail(&self, posts: Vec<Post>, error: &StoreError) {
        let count = posts.len() as u64;
        self.shared.counters.failed.fetch_add(count, Relaxed);
        self.shared.counters.queued.fetch_sub(count, Relaxed);
        for post in posts {
            answer(post.reply, Err(error.clone()));
        }
    }

    async fn finish(mut self) {
        self.give_up_pending("the store was closed");
        if let (Link::Up(link), Some(lane)) = (&self.link, self.lane) {
            let mark = self.watermark(lane);
            let given = self.owner.give_up(&link.session, lane.number, mark).await;
            if let Err(failure) = given {
                // Its lease runs out.
                tracing::debug!(reason = failure.reason(), "the lane was not given up");
            }
        }
        self.shared.follower.let_go();
    }
}
