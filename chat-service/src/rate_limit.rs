//! How often one client may post: a token bucket for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Addresses remembered at a time, about 64 bytes each. Beyond, newcomers share one bucket.
const MOST_ADDRESSES: usize = 10_000;

/// The limit of one address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
    pub(crate) limits_loopback: bool,
}

/// Counts posts by address. Times are those of the monotonic clock.
pub(crate) struct RateLimiter {
    rate: Option<Rate>,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    newcomers: Option<Bucket>,
    swept: Duration,
}

struct Bucket {
    tokens: f64,
    at: Duration,
}

impl RateLimiter {
    /// `None` is no limit.
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            buckets: Mutex::default(),
        }
    }

    /// Takes one post of `address` at `now`, or says how long to wait.
    pub(crate) fn take(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let address = network(address);
        if address.is_loopback() && !rate.limits_loopback {
            return Ok(());
        }
        // Nothing can panic while it is held.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.bucket(address, rate, now).take(rate, now)
    }
}

impl Buckets {
    fn bucket(&mut self, address: IpAddr, rate: Rate, now: Duration) -> &mut Bucket {
        let full = Bucket {
            tokens: rate.burst,
            at: now,
        };
        if self.by_address.len() >= MOST_ADDRESSES && !self.by_address.contains_key(&address) {
            self.sweep(rate, now);
            if self.by_address.len() >= MOST_ADDRESSES {
                return self.newcomers.get_or_insert(full);
            }
        }
        self.by_address.entry(address).or_insert(full)
    }

    /// Forgets the addresses whose bucket is full again, at most once a second.
    fn sweep(&mut self, rate: Rate, now: Duration) {
        if now.saturating_sub(self.swept) < Duration::from_secs(1) && !self.swept.is_zero() {
            return;
        }
        self.swept = now;
        self.by_address
            .retain(|_, bucket| bucket.filled(rate, now) < rate.burst);
    }
}

impl Bucket {
    fn filled(&self, rate: Rate, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.tokens + passed * rate.per_second).min(rate.burst)
    }

    fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.tokens = self.filled(rate, now);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A day at most, so that a tiny rate cannot overflow the duration.
        let seconds = ((1.0 - self.tokens) / rate.per_second).min(86_400.0);
        Err(Duration::from_secs_f64(seconds))
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client can choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2.0,
        burst: 3.0,
        limits_loopback: false,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn burst_then_rate() {
        let limiter = RateLimiter::new(Some(RATE));
        let client = address("192.0.2.1");
        for _ in 0..3 {
            limiter.take(client, Duration::ZERO).unwrap();
        }
        assert_eq!(
            limiter.take(client, Duration::ZERO),
            Err(Duration::from_millis(500))
        );
        limiter.take(client, Duration::from_millis(500)).unwrap();
        limiter
            .take(client, Duration::from_millis(600))
            .unwrap_err();
        limiter.take(address("192.0.2.2"), Duration::ZERO).unwrap();
    }

    #[test]
    fn one_ipv6_network_is_one_client_and_loopback_is_free() {
        let limiter = RateLimiter::new(Some(RATE));
        for host in 1..=3 {
            limiter
                .take(address(&format!("2001:db8::{host}")), Duration::ZERO)
                .unwrap();
        }
        limiter
            .take(address("2001:db8::4"), Duration::ZERO)
            .unwrap_err();
        for _ in 0..10 {
            limiter.take(address("::1"), Duration::ZERO).unwrap();
            limiter
                .take(address("::ffff:127.0.0.1"), Duration::ZERO)
                .unwrap();
        }
    }

    #[test]
    fn addresses_are_bounded_and_forgotten_when_quiet() {
        let limiter = RateLimiter::new(Some(RATE));
        let nth = |n: usize| IpAddr::from(u32::try_from(0x0a00_0000 + n).unwrap().to_be_bytes());
        for n in 0..MOST_ADDRESSES {
            limiter.take(nth(n), Duration::ZERO).unwrap();
        }
        let newcomer = nth(MOST_ADDRESSES);
        for _ in 0..3 {
            limiter.take(newcomer, Duration::ZERO).unwrap();
        }
        limiter
            .take(nth(MOST_ADDRESSES + 1), Duration::ZERO)
            .unwrap_err();
        limiter.take(newcomer, Duration::from_secs(60)).unwrap();
        assert_eq!(limiter.buckets.lock().unwrap().by_address.len(), 1);
    }
}
