//! What retention leaves out because it is damaged, until the store is opened again.

use std::collections::HashSet;

use chat_model::ChannelId;

use super::WAITING_CHANNELS;
use crate::sqlite::failures::is_damage;

/// What is left out.
#[derive(Default)]
pub(super) struct Around {
    /// Events up to this position are not looked at any more.
    pub(super) oldest: i64,
    /// Senders' keys up to this number stay.
    pub(super) keys: i64,
    /// Channels are not forgotten.
    pub(super) forgetting: bool,
    /// Channels that cannot be held to their bounds.
    channels: HashSet<ChannelId>,
    /// Damage that was met since it was last told.
    met: Option<String>,
}

impl Around {
    pub(super) fn has(&self, channel: ChannelId) -> bool {
        self.channels.contains(&channel)
    }

    pub(super) fn insert(&mut self, channel: ChannelId) {
        if self.channels.len() >= WAITING_CHANNELS {
            self.channels.clear();
        }
        self.channels.insert(channel);
    }

    pub(super) fn note(&mut self, what: &str, error: &rusqlite::Error) {
        self.met
            .get_or_insert_with(|| format!("retention: {what}: {error}"));
    }

    pub(super) fn take_met(&mut self) -> Option<String> {
        self.met.take()
    }

    /// What was found; nothing where it is damaged, which is noted.
    pub(super) fn unless_damaged<T>(
        &mut self,
        what: &str,
        found: rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        match found {
            Err(error) if is_damage(&error) => {
                self.note(what, &error);
                Ok(None)
            }
            found => found,
        }
    }
}

/// What a try leaves as it is, because it may be what is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leave {
    /// Senders' keys.
    pub(super) keys: bool,
    /// The rows of events: they are no longer found by their channels and numbers, but stay in the
    /// file. SQLite removes no row whose page, or one beside that, cannot be read.
    pub(super) rows: bool,
}

impl Leave {
    const NOTHING: Self = Self {
        keys: false,
        rows: false,
    };
    pub(super) const KEYS: Self = Self {
        keys: true,
        rows: false,
    };
    pub(super) const ROWS: Self = Self {
        keys: true,
        rows: true,
    };
    /// One after the other, while damage is met.
    pub(super) const TRIES: [Self; 3] = [Self::NOTHING, Self::KEYS, Self::ROWS];
}
