use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_model::ChannelId;

use super::channel::{Channel, Left};
use super::reader::Reader;
use super::{Start, Waker};

/// The channels that a node has in memory: those that somebody listens to, and those that linger for
/// listeners that return. Their total number is limited.
///
/// A client may hold as many channels as are still free, and no more.
pub(super) struct Channels {
    known: HashMap<ChannelId, Known>,
    /// How many channels clients hold.
    held: HashMap<Client, usize>,
    /// Channels without listeners, and since when.
    lingering: BTreeSet<(Instant, ChannelId)>,
    linger: Duration,
    max: usize,
}

struct Known {
    channel: Arc<Channel>,
    /// The client that listened first, as long as somebody listens.
    holder: Option<Client>,
}

/// The number of a client whose streams hold channels. `None` has no share.
pub(crate) type Client = Option<u64>;

/// Why a stream cannot have all its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManyChannels {
    /// There is no room, and too few channels linger that could be dropped.
    #[error("this node has no room for so many more channels")]
    Node,
    /// This client already holds as many as would be left for others.
    #[error("the streams of this address have reached its limit of channels")]
    Share,
}

impl Channels {
    /// No channels yet, and at most `max`. A channel that was left stays for `linger`.
    pub(super) fn new(max: usize, linger: Duration) -> Self {
        Self {
            known: HashMap::new(),
            held: HashMap::new(),
            lingering: BTreeSet::new(),
            linger,
            max,
        }
    }

    pub(super) fn get(&self, id: ChannelId) -> Option<&Arc<Channel>> {
        self.known.get(&id).map(|known| &known.channel)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.known.values().map(|known| &known.channel)
    }

    /// Adds a listener of this client in these channels, which must be distinct. `make` creates those that
    /// are not in memory. If there is no room, those that have lingered longest are dropped.
    pub(super) fn join(
        &mut self,
        client: Client,
        starts: &[(ChannelId, Start)],
        waker: &Arc<dyn Waker>,
        mut make: impl FnMut(ChannelId) -> Arc<Channel>,
    ) -> Result<Vec<(Arc<Channel>, usize, Reader)>, TooManyChannels> {
        self.make_room(client, starts)?;
        let join = |&(id, start): &(ChannelId, Start)| {
            let known = self.known.entry(id).or_insert_with(|| Known {
                channel: make(id),
                holder: None,
            });
            let (waker, reader, idle_since) = known.channel.join(waker.clone(), start);
            if let Some(since) = idle_since {
                self.lingering.remove(&(since, id));
            }
            if known.holder.is_none() {
                known.holder = Some(client);
                *self.held.entry(client).or_default() += 1;
            }
            (known.channel.clone(), waker, reader)
        };
        Ok(starts.iter().map(join).collect())
    }

    /// Notes that the last listener of a channel has left, if nobody has joined since.
    pub(super) fn left(&mut self, channel: &Channel, now: Instant) {
        let id = channel.id();
        let holder = match channel.left(now) {
            Left::Stays => return,
            Left::Lingers => {
                self.lingering.insert((now, id));
                self.known
                    .get_mut(&id)
                    .and_then(|known| known.holder.take())
            }
            Left::Goes => {
                channel.go(false);
                self.known.remove(&id).and_then(|known| known.holder)
            }
        };
        if let Some(client) = holder
            && let Entry::Occupied(mut held) = self.held.entry(client)
        {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    /// Forgets those that have lingered long enough.
    pub(super) fn end_lingering(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.lingering.first()
            && now >= since + self.linger
        {
            self.forget(since, id, true);
        }
    }

    /// When the next one has lingered long enough.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let (since, _) = self.lingering.first()?;
        Some(*since + self.linger)
    }

    fn make_room(
        &mut self,
        client: Client,
        starts: &[(ChannelId, Start)],
    ) -> Result<(), TooManyChannels> {
        let known = starts.iter().filter_map(|(id, _)| self.known.get(id));
        let (listened, back): (Vec<_>, Vec<_>) = known.partition(|known| known.holder.is_some());
        let (listened, back) = (listened.len(), back.len());
        if listened == starts.len() {
            return Ok(());
        }
        let wanted = starts.len() - listened;
        let free = self.max - (self.known.len() - self.lingering.len());
        if wanted > free {
            return Err(TooManyChannels::Node);
        }
        let held = self.held.get(&client).copied().unwrap_or(0);
        if client.is_some() && held + wanted > free - wanted {
            return Err(TooManyChannels::Share);
        }
        let excess = (self.known.len() + wanted - back).saturating_sub(self.max);
        if excess > 0 {
            let wanted = |id: &ChannelId| starts.iter().any(|(start, _)| start == id);
            let oldest = self.lingering.iter().filter(|(_, id)| !wanted(id));
            let give_way: Vec<_> = oldest.take(excess).copied().collect();
            for (since, id) in give_way {
                self.forget(since, id, false);
            }
        }
        Ok(())
    }

    fn forget(&mut self, since: Instant, id: ChannelId, lingers: bool) {
        self.lingering.remove(&(since, id));
        if let Some(known) = self.known.remove(&id) {
            known.channel.go(lingers);
        }
    }
}

#[cfg(test)]
mod tests;
