//! How much a client may make the router keep.

use std::collections::HashSet;
use std::sync::Arc;

use http_server::client_address::Client as Share;
use parking_lot::{Mutex, MutexGuard};

use crate::BrokerConfig;
use crate::pace::{Costs, Turn, Turns};
use crate::shares::{Names, Shares};
use crate::wire::Refusal;

/// What the router keeps for strangers.
pub(crate) struct Kept {
    /// The filters that it has a queue for.
    filters: Names,
    /// The topics for which it remembers the filters.
    topics: Names,
    /// Those that stand now.
    subscriptions: Mutex<Shares>,
    turns: Turns,
}

/// One connection's part of it.
pub(crate) struct Budget {
    kept: Arc<Kept>,
    share: Share,
    /// The topic of the last message, which most have in common with the one before.
    topic: Option<u64>,
    /// What it has subscribed to.
    subscribed: HashSet<u64>,
    turn: Turn,
}

impl Kept {
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self {
            filters: Names::new(config.max_filters),
            topics: Names::new(config.max_topics),
            subscriptions: Mutex::new(Shares::new(config.max_subscriptions)),
            turns: Turns::default(),
        }
    }

    /// What packets cost the router now.
    fn costs(&self) -> Costs {
        Costs {
            publish: self.filters.count().max(self.subscriptions().taken()),
            filter: self.topics.count(),
        }
    }

    /// A new router knows no names.
    pub(crate) fn forget_names(&self) {
        self.filters.forget();
        self.topics.forget();
    }

    fn subscriptions(&self) -> MutexGuard<'_, Shares> {
        self.subscriptions.lock()
    }
}

impl Budget {
    pub(crate) fn new(kept: Arc<Kept>, share: Share) -> Self {
        Self {
            turn: kept.turns.of(share),
            kept,
            share,
            topic: None,
            subscribed: HashSet::new(),
        }
    }

    /// What packets cost the router now, and the turn of this address.
    pub(crate) fn pace(&self) -> (Costs, &Turn) {
        (self.kept.costs(), &self.turn)
    }

    /// A message or a will for this topic.
    ///
    /// # Errors
    /// When the router does not know it, and the client's share is used up; as below.
    pub(crate) fn admit_topic(&mut self, topic: &[u8]) -> Result<(), Refusal> {
        let name = self.kept.topics.hash(topic);
        if self.topic != Some(name) {
            if !self.kept.topics.admit(name, self.share) {
                return Err("more distinct topics than its share of max_topics");
            }
            self.topic = Some(name);
        }
        Ok(())
    }

    /// A subscription to this filter.
    pub(crate) fn admit_filter(&mut self, filter: &str) -> Result<(), Refusal> {
        let name = self.kept.filters.hash(filter.as_bytes());
        if self.subscribed.contains(&name) {
            return Ok(());
        }
        if !self.kept.filters.admit(name, self.share) {
            return Err("more distinct filters than its share of max_filters");
        }
        if !self.kept.subscriptions().take(self.share) {
            return Err("more subscriptions than its share of max_subscriptions");
        }
        self.subscribed.insert(name);
        Ok(())
    }

    /// The end of subscriptions. The router keeps the filters.
    pub(crate) fn forget_filters(&mut self, filters: &[String]) {
        for filter in filters {
            let name = self.kept.filters.hash(filter.as_bytes());
            if self.subscribed.remove(&name) {
                self.kept.subscriptions().give_back(self.share, 1);
            }
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let count = self.subscribed.len();
        self.kept.subscriptions().give_back(self.share, count);
        self.kept.turns.forget(self.share, &self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(config: &BrokerConfig) -> Budget {
        let share = Share::new("192.0.2.1".parse().unwrap());
        Budget::new(Arc::new(Kept::new(config)), share)
    }

    #[test]
    fn subscriptions_of_all_connections_are_bounded_and_given_back() {
        let mut first = budget(&BrokerConfig {
            max_subscriptions: 8,
            ..BrokerConfig::default()
        });
        let mut second = Budget::new(Arc::clone(&first.kept), first.share);
        for filter in ["a", "b", "a", "a"] {
            first.admit_filter(filter).unwrap();
            second.admit_filter(filter).unwrap();
        }
        first.admit_filter("c").unwrap_err();
        first.forget_filters(&["a".to_owned()]);
        first.admit_filter("c").unwrap();
        first.admit_filter("d").unwrap_err();
        drop(second);
        first.admit_filter("d").unwrap();
    }

    #[test]
    fn distinct_topics_are_bounded() {
        let mut budget = budget(&BrokerConfig {
            max_topics: 8,
            ..BrokerConfig::default()
        });
        for topic in [b"a", b"b", b"c", b"d"] {
            budget.admit_topic(topic).unwrap();
        }
        budget.admit_topic(b"e").unwrap_err();
        budget.admit_topic(b"a").unwrap();
    }
}
