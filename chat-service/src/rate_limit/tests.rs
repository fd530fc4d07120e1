use super::*;

const LIMITS: Limits = Limits {
    requests: Some(Rate {
        per_second: 2.0,
        burst: 3.0,
    }),
    bytes: None,
    limits_loopback: false,
};

fn client(text: &str) -> Client {
    Client::new(text.parse().unwrap())
}

fn nth(n: usize) -> Client {
    let n = u32::try_from(n).unwrap();
    Client::new(IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()))
}

#[test]
fn burst_then_rate() {
    let limiter = RateLimiter::new(LIMITS);
    let one = client("192.0.2.1");
    for _ in 0..3 {
        limiter.take(one, Duration::ZERO).unwrap();
    }
    let refused = Exceeded {
        what: What::Requests,
        by_network: false,
        wait: Duration::from_millis(500),
    };
    assert_eq!(limiter.take(one, Duration::ZERO), Err(refused));
    limiter.take(one, Duration::from_millis(500)).unwrap();
    limiter.take(one, Duration::from_millis(600)).unwrap_err();
    limiter.take(client("192.0.2.2"), Duration::ZERO).unwrap();
}

#[test]
fn one_ipv6_network_is_one_client_and_loopback_is_free() {
    let limiter = RateLimiter::new(LIMITS);
    for host in 1..=3 {
        let host = client(&format!("2001:db8::{host}"));
        limiter.take(host, Duration::ZERO).unwrap();
    }
    limiter
        .take(client("2001:db8::4"), Duration::ZERO)
        .unwrap_err();
    for _ in 0..10 {
        for loopback in ["::1", "127.0.0.1", "::ffff:127.0.0.1"] {
            limiter.take(client(loopback), Duration::ZERO).unwrap();
        }
    }
}

#[test]
fn bytes_are_counted_beside_posts() {
    let limiter = RateLimiter::new(Limits {
        requests: None,
        bytes: Some(Rate {
            per_second: 1_000.0,
            burst: 10_000.0,
        }),
        limits_loopback: false,
    });
    let (large, small) = (client("192.0.2.1"), client("192.0.2.2"));
    limiter.take(large, Duration::ZERO).unwrap();
    limiter.spend(large, 12_000 - EVENT_BYTES, Duration::ZERO);
    let refused = Exceeded {
        what: What::Bytes,
        by_network: false,
        wait: Duration::from_secs(2),
    };
    assert_eq!(limiter.take(large, Duration::ZERO), Err(refused));
    limiter.take(small, Duration::ZERO).unwrap();
    limiter.take(large, Duration::from_secs(3)).unwrap();
}

/// A customer with a /48 can choose among 65,536 /64s.
#[test]
fn one_customer_of_ipv6_counts_as_sixteen_clients() {
    let limiter = RateLimiter::new(LIMITS);
    let from = |n: u32| client(&format!("2001:db8:1:{n:x}::1"));
    let taken = (0..1_000)
        .take_while(|&n| limiter.take(from(n), Duration::ZERO).is_ok())
        .count();
    assert_eq!(taken, 16 * 3);
    let refused = limiter.take(from(9_999), Duration::ZERO).unwrap_err();
    assert!(refused.by_network);
    // It has used 48 places of 10,000, and nobody else's share.
    for _ in 0..3 {
        limiter
            .take(client("2001:db8:2::1"), Duration::ZERO)
            .unwrap();
    }
    assert!(limiter.lock().clients.len() < 60);
}

#[test]
fn newcomers_share_with_their_own_network_when_the_table_is_full() {
    let limiter = RateLimiter::new(LIMITS);
    for n in 0..MOST_ADDRESSES {
        limiter.take(nth(n), Duration::ZERO).unwrap();
    }
    // One network uses up its buckets; a new client from another does not notice.
    let crowd = |host| client(&format!("198.51.100.{host}"));
    let taken = (0..200)
        .take_while(|&host| limiter.take(crowd(host), Duration::ZERO).is_ok())
        .count();
    assert_eq!(taken, 16 * 3);
    limiter.take(client("203.0.113.1"), Duration::ZERO).unwrap();
    // Quiet clients are forgotten.
    let later = Duration::from_secs(60);
    limiter.take(crowd(1), later).unwrap();
    let buckets = limiter.lock();
    assert_eq!((buckets.clients.len(), buckets.networks.len()), (1, 0));
}
