//! The listener of the model, and what it is promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chat_model::{Position, Seq};
use proptest::prelude::*;

use super::super::entry::Entry;
use super::super::gap::GapReason;
use super::super::reader::{Item, Reader};
use super::log::Log;

/// What the listener has seen, as a client of the protocol would keep it.
pub(super) struct Listener {
    pub(super) node: usize,
    pub(super) reader: Reader,
    /// `None` until the stream has reported where it begins.
    pub(super) at: Option<Position>,
    pub(super) seen: BTreeMap<Seq, Arc<Entry>>,
    /// The numbers that were reported to it as damaged.
    pub(super) damaged: BTreeSet<Seq>,
    /// The smallest number that it must get.
    pub(super) owed_from: Seq,
}

impl Listener {
    pub(super) fn take(&mut self, item: Item, log: &Log) -> Result<(), TestCaseError> {
        let last = self.at.map(|at| at.seq);
        match item {
            Item::Event(entry) => {
                if let Some(last) = last {
                    prop_assert_eq!(entry.seq(), last + 1, "not the next one");
                }
                self.at = Some(entry.position);
                self.seen.insert(entry.seq(), entry);
            }
            Item::Gap(gap, position) => {
                let last = last.expect("a live start has no gap before its first event");
                let from = gap.from.expect("the cursor was readable");
                match gap.reason {
                    GapReason::Retention => {
                        prop_assert_eq!(from, last + 1);
                        prop_assert!(gap.to >= from);
                        // Perhaps it belongs to the log that existed when the page was read.
                        prop_assert!(gap.to <= log.expired, "{} is still there", gap.to);
                        prop_assert_eq!(position.seq, gap.to);
                    }
                    GapReason::Epoch => {
                        prop_assert_eq!(gap.to, last);
                        prop_assert!(from <= gap.to);
                        prop_assert_eq!(position.seq, from - 1);
                        self.damaged.split_off(&from);
                        // Perhaps nothing is left of an epoch that is not listed.
                        let named = log.names(self.at.unwrap().epoch);
                        let unknown = from == 1 && !named;
                        if log.is_another && !named {
                            // A gap is reported; it cannot show that what precedes it is another log.
                            self.owed_from = self.owed_from.max(from);
                        }
                        for (_, lost) in self.seen.split_off(&from) {
                            let lost_indeed = unknown || !log.has(&lost);
                            prop_assert!(lost_indeed, "{} was not lost", lost.seq());
                        }
                    }
                    GapReason::Damaged => {
                        prop_assert_eq!(from, last + 1);
                        prop_assert!(gap.to >= from);
                        prop_assert_eq!(position.seq, gap.to);
                        self.damaged.extend(from..=gap.to);
                    }
                    GapReason::Cursor => prop_assert!(false, "the cursor was readable"),
                }
                self.at = Some(position);
            }
        }
        Ok(())
    }
}
