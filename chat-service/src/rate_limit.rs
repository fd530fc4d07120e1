//! Limits how often one client may ask and how much it may post, with token buckets for each address.
//! Not the crate governor: its cells cannot go below zero, and their number is unlimited (decision 30).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use http_server::client_address::Client;
use parking_lot::{Mutex, MutexGuard};

/// How many addresses are remembered at a time, about 80 bytes each, and as many networks. Further
/// addresses share the buckets of their network.
const MOST_ADDRESSES: usize = 10_000;
/// The limits of an IPv6 /48, as a multiple of those of one client (a /64): providers give a /48 to one
/// customer, who can choose freely among its /64s.
const NETWORK_CLIENTS: f64 = 16.0;
/// The approximate size of an event besides the body of its post: keys, ids, time.
const EVENT_BYTES: usize = 256;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

/// The limits of one address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// The limit of requests; `None` means no limit.
    pub(crate) requests: Option<Rate>,
    /// The limit of their bytes; `None` means no limit.
    pub(crate) bytes: Option<Rate>,
    pub(crate) limits_loopback: bool,
}

/// Which limit was exceeded, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) what: What,
    /// Whether the client's whole network exceeded it, not only the client.
    pub(crate) by_network: bool,
    /// How long to wait before the next attempt.
    pub(crate) wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Requests,
    Bytes,
}

/// Counts the requests of one kind by address. Times come from the monotonic clock.
pub(crate) struct RateLimiter {
    limits: Limits,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    clients: HashMap<Client, Bucket>,
    /// The networks of IPv6 addresses, and of new clients that do not fit into `clients`.
    networks: HashMap<IpAddr, Bucket>,
    /// Shared by new clients whose network does not fit into `networks` either.
    others: Option<Bucket>,
    swept: Option<Duration>,
}

/// A bucket. A network's bucket holds as much as those of several clients.
#[derive(Clone, Copy)]
struct Bucket {
    requests: f64,
    /// Below 0 after a post that was larger than what was left.
    bytes: f64,
    at: Duration,
    clients: f64,
}

impl RateLimiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            buckets: Mutex::default(),
        }
    }

    /// Takes one request of a client at `now`, or says which limit it exceeds. Its bytes are
    /// [spent](Self::spend) when their number is known.
    pub(crate) fn take(&self, client: Client, now: Duration) -> Result<(), Exceeded> {
        if self.is_free(client) {
            return Ok(());
        }
        self.lock().take(client, &self.limits, now)
    }

    /// Takes the bytes of a post whose body was this long.
    pub(crate) fn spend(&self, client: Client, body: usize, now: Duration) {
        if self.limits.bytes.is_none() || self.is_free(client) {
            return;
        }
        let bytes = (body + EVENT_BYTES) as f64;
        self.lock().of(client, &self.limits, now, |bucket| {
            bucket.bytes -= bytes / bucket.clients;
        });
    }

    fn is_free(&self, client: Client) -> bool {
        let Limits {
            requests,
            bytes,
            limits_loopback,
        } = self.limits;
        let unlimited = requests.is_none() && bytes.is_none();
        unlimited || (client.is_loopback() && !limits_loopback)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock()
    }
}

impl Buckets {
    fn take(&mut self, client: Client, limits: &Limits, now: Duration) -> Result<(), Exceeded> {
        let mut refusal = Ok(());
        self.of(client, limits, now, |bucket| {
            if refusal.is_ok() {
                refusal = bucket.check(limits);
            }
        });
        refusal?;
        self.of(client, limits, now, |bucket| {
            bucket.requests -= 1.0 / bucket.clients;
        });
        Ok(())
    }

    /// Fills each bucket that counts for a client up to `now`, and does something with it.
    fn of(
        &mut self,
        client: Client,
        limits: &Limits,
        now: Duration,
        mut act: impl FnMut(&mut Bucket),
    ) {
        let mut act = |bucket: &mut Bucket| {
            bucket.fill(limits, now);
            act(bucket);
        };
        let known = self.make_room(client, limits, now);
        if known {
            let new = Bucket::full(limits, now, 1.0);
            act(self.clients.entry(client).or_insert(new));
        }
        if known && client.is_ipv4() {
            return;
        }
        let new = Bucket::full(limits, now, NETWORK_CLIENTS);
        let network = client.network();
        let is_full = self.networks.len() >= MOST_ADDRESSES;
        if is_full && !self.networks.contains_key(&network) {
            act(self.others.get_or_insert(new));
        } else {
            act(self.networks.entry(network).or_insert(new));
        }
    }

    /// Whether a client has its own bucket, or may have one.
    fn make_room(&mut self, client: Client, limits: &Limits, now: Duration) -> bool {
        let is_full = |buckets: &Self| buckets.clients.len() >= MOST_ADDRESSES;
        if !is_full(self) || self.clients.contains_key(&client) {
            return true;
        }
        self.sweep(limits, now);
        !is_full(self)
    }

    /// Removes buckets that are full again, at most once a second.
    fn sweep(&mut self, limits: &Limits, now: Duration) {
        let is_late = |swept| now.saturating_sub(swept) >= Duration::from_secs(1);
        if !self.swept.is_none_or(is_late) {
            return;
        }
        self.swept = Some(now);
        let in_use = |bucket: &mut Bucket| {
            bucket.fill(limits, now);
            !bucket.is_full(limits)
        };
        self.clients.retain(|_, bucket| in_use(bucket));
        self.networks.retain(|_, bucket| in_use(bucket));
    }
}

impl Bucket {
    fn full(limits: &Limits, now: Duration, clients: f64) -> Self {
        let burst = |rate: Option<Rate>| rate.map_or(0.0, |rate| rate.burst);
        Self {
            requests: burst(limits.requests),
            bytes: burst(limits.bytes),
            at: now,
            clients,
        }
    }

    fn fill(&mut self, limits: &Limits, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        for (rate, tokens) in [
            (limits.requests, &mut self.requests),
            (limits.bytes, &mut self.bytes),
        ] {
            if let Some(rate) = rate {
                *tokens = (*tokens + passed * rate.per_second).min(rate.burst);
            }
        }
    }

    fn is_full(&self, limits: &Limits) -> bool {
        let is_full = |rate: Option<Rate>, tokens| rate.is_none_or(|rate| tokens >= rate.burst);
        is_full(limits.requests, self.requests) && is_full(limits.bytes, self.bytes)
    }

    /// Whether there is room for one more request, and any room for bytes.
    fn check(&self, limits: &Limits) -> Result<(), Exceeded> {
        let lacks = |what, rate: Option<Rate>, tokens: f64, needed: f64| match rate {
            Some(rate) if tokens < needed => Err(Exceeded {
                what,
                by_network: self.clients > 1.0,
                // A day at most, so that a tiny rate cannot overflow the duration.
                wait: Duration::from_secs_f64(((needed - tokens) / rate.per_second).min(86_400.0)),
            }),
            _ => Ok(()),
        };
        lacks(
            What::Requests,
            limits.requests,
            self.requests,
            1.0 / self.clients,
        )?;
        lacks(What::Bytes, limits.bytes, self.bytes, 0.0)
    }
}

#[cfg(test)]
mod tests;
