//! What is known of damage in a store: events that are not what was stored, pages of the database
//! that cannot be read.

use std::collections::HashSet;

use chat_model::{ChannelId, Damaged};
use parking_lot::{Mutex, MutexGuard};

/// Channels that are named in the log at most; `hark check` names all.
const NAMED: usize = 100;

/// What was met since the store was opened. Whoever meets damage notes it here, which also tells
/// the operator, once for each channel.
#[derive(Debug, Default)]
pub(crate) struct Damage(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    numbers: u64,
    channels: HashSet<ChannelId>,
    first: Option<String>,
}

impl Damage {
    /// Notes events that cannot be read.
    pub(crate) fn note(&self, channel: ChannelId, damaged: &[Damaged]) {
        let Some(first) = damaged.first() else { return };
        let mut met = self.lock();
        let numbers = damaged.iter().map(|range| range.to - range.from + 1);
        met.numbers += numbers.sum::<u64>();
        met.first.get_or_insert_with(|| match first {
            Damaged { from, to } if from == to => format!("message {from} of channel {channel}"),
            Damaged { from, to } => format!("messages {from} to {to} of channel {channel}"),
        });
        if met.channels.len() < NAMED && met.channels.insert(channel) {
            tracing::error!(
                %channel,
                from = first.from,
                to = first.to,
                "stored messages are damaged: `hark check` names all of them"
            );
            if met.channels.len() == NAMED {
                tracing::error!("further channels with damaged messages are not named here");
            }
        }
    }

    /// Notes that a part of the database cannot be read.
    pub(crate) fn note_database(&self, what: &str) {
        let mut met = self.lock();
        if met.first.is_none() {
            tracing::error!(what, "the database is damaged: `hark check` says how far");
        }
        met.first.get_or_insert_with(|| what.to_owned());
    }

    /// Numbers met so far; one that is read twice counts twice.
    pub(crate) fn numbers(&self) -> u64 {
        self.lock().numbers
    }

    /// The first of it, in words; `None` while there was none.
    pub(crate) fn first(&self) -> Option<String> {
        self.lock().first.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Met> {
        self.0.lock()
    }
}
