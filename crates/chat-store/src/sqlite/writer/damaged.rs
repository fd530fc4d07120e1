//! Messages whose channel or key is damaged, and the others of their batch.
//!
//! SQLite lets no transaction write any more that has met a damaged page. So what a batch needs of
//! its channels is read again outside of one; those that cannot be read are left out, and the rest is
//! tried again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chat_model::ChannelId;

use super::{Tries, Writer};
use crate::StoreError;
use crate::queue::Post;
use crate::sqlite::database::Failure;

/// How long it is believed that a channel cannot be read, and of how many.
const BELIEVED_FOR: Duration = Duration::from_secs(60);
const MOST_LOST: usize = 1_000;
/// Messages of a batch that are found to be the cause before each is tried alone.
const MOST_CAUSES: u8 = 8;

/// Channels whose logs could not be read a moment ago.
#[derive(Default)]
pub(super) struct LostChannels {
    channels: HashSet<ChannelId>,
    since: Option<Instant>,
}

impl LostChannels {
    fn note(&mut self, lost: HashSet<ChannelId>) {
        if self.channels.len() + lost.len() > MOST_LOST {
            self.channels.clear();
        }
        self.channels.extend(lost);
        self.since = Some(Instant::now());
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Writer {
    /// Answers the messages of a batch whose channels are known to be damaged; the others.
    pub(super) fn without_lost(&mut self, batch: Vec<Post>) -> Vec<Post> {
        if self.lost.channels.is_empty() {
            return batch;
        }
        if self
            .lost
            .since
            .is_some_and(|at| at.elapsed() > BELIEVED_FOR)
        {
            self.lost.forget();
            return batch;
        }
        let lost = &self.lost.channels;
        let (lost, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|post| lost.contains(&post.new.channel));
        if !lost.is_empty() {
            self.refuse(lost, &StoreError::damaged("the entry of the channel"));
        }
        rest
    }

    /// Stores of a batch what does not need what is damaged. `met` is the place of the message at
    /// which that was met, if it was one.
    pub(super) fn store_around(
        &mut self,
        mut batch: Vec<Post>,
        met: Option<usize>,
        failure: &Failure,
        tries: Tries,
    ) {
        let error = failure.to_error();
        self.shared
            .counters
            .damage
            .note_database(&error.to_string());
        let next = Tries {
            causes: tries.causes + 1,
            ..tries
        };
        if met.is_none() {
            self.database.put_off_settling();
        }
        if tries.causes == 0 {
            let channels = batch.iter().map(|post| post.new.channel);
            match self.database.recall(channels) {
                Ok(lost) => {
                    self.lost.note(lost);
                    let rest = self.without_lost(batch);
                    self.try_store_some(rest, next);
                }
                Err(error) => self.give_up(batch, &Failure::NothingStored(error)),
            }
        } else if let Err(failure) = self.database.try_log() {
            // Nothing at all can be stored.
            self.give_up(batch, &failure);
        } else if batch.len() == 1 {
            self.refuse(batch, &error);
        } else if let Some(place) = met.filter(|_| tries.causes < MOST_CAUSES) {
            let cause = batch.remove(place);
            self.refuse(vec![cause], &error);
            self.try_store_some(batch, next);
        } else {
            for post in batch {
                self.try_store(vec![post], tries);
            }
        }
    }

    fn try_store_some(&mut self, batch: Vec<Post>, tries: Tries) {
        if !batch.is_empty() {
            self.try_store(batch, tries);
        }
    }

    fn give_up(&mut self, batch: Vec<Post>, failure: &Failure) {
        self.note_failure(failure);
        self.refuse(batch, &failure.to_error());
    }
}
