use std::time::Duration;

use tokio::time::Instant;

/// The length of the connection preface before the first frame (RFC 9113, section 3.4).
const PREFACE: u32 = 24;
/// Length, type, flags and stream of a frame (section 4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;

/// The price of a frame, in bytes of useful work. Higher than the size of an answer to a ping, or pings
/// would pay for themselves.
const COST: u64 = 32;
/// The credit of a connection: 2,000 useless frames. Clients begin with some settings, priorities and
/// windows.
const MOST: u64 = 2_000 * COST;
/// The credit that a connection gains by itself: 100 such frames a second.
const PER_SECOND: u64 = 100 * COST;

/// Limits how many useless frames an HTTP/2 client may send: settings, pings and their answers, resets,
/// windows, priorities, empty data. h2 itself limits the frames of one head and the resets that are not
/// yet handled; all other frames cost it time for as long as they arrive (RFC 9113, section 10.5).
/// Frames are paid for with useful bytes: the bodies that the client sends, and everything sent to it,
/// for which it must keep its windows open.
#[derive(Debug)]
pub(super) struct FrameBudget {
    /// Bytes until the next frame's head.
    skip: u32,
    head: [u8; HEAD],
    /// How many bytes of `head` have arrived.
    head_bytes: usize,
    credit: u64,
    filled: Instant,
}

impl FrameBudget {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            head_bytes: 0,
            credit: MOST,
            filled: Instant::now(),
        }
    }

    /// Pays for the frames that begin in these bytes from the client; `false` if the credit is used up.
    pub(super) fn pay_for(&mut self, mut read: &[u8]) -> bool {
        let mut cost = 0;
        while !read.is_empty() {
            if self.skip > 0 {
                let skipped = read.len().min(self.skip as usize);
                // At most `skip`.
                self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
                read = &read[skipped..];
                continue;
            }
            let taken = read.len().min(HEAD - self.head_bytes);
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&read[..taken]);
            self.head_bytes += taken;
            read = &read[taken..];
            if self.head_bytes == HEAD {
                self.head_bytes = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                cost += COST;
                if kind == DATA {
                    self.earn(u64::from(self.skip));
                }
            }
        }
        self.spend(cost)
    }

    /// Adds credit for bytes that were sent to the client.
    pub(super) fn earn(&mut self, bytes: u64) {
        self.credit = (self.credit + bytes).min(MOST);
    }

    fn spend(&mut self, cost: u64) -> bool {
        if self.credit < cost {
            self.fill();
        }
        let left = self.credit.checked_sub(cost);
        self.credit = left.unwrap_or_default();
        left.is_some()
    }

    /// Adds the credit for the time that has passed. It is called only when the credit is used up; what
    /// exceeds the maximum by then is lost.
    fn fill(&mut self) {
        let now = Instant::now();
        let passed = (now - self.filled).min(Duration::from_secs(60));
        let earned = u64::try_from(passed.as_millis()).unwrap_or(0) * PER_SECOND / 1_000;
        self.filled = now;
        self.earn(earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + length, 0xff);
        frame
    }

    fn begun() -> FrameBudget {
        let mut budget = FrameBudget::new();
        assert!(budget.pay_for(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        budget
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_nothing_are_counted_however_they_are_cut() {
        for chunk in [1, 7, 9, 4_096] {
            let mut budget = begun();
            let flood = frame(6, 8).repeat(2_000);
            assert!(flood.chunks(chunk).all(|chunk| budget.pay_for(chunk)));
            assert!(!budget.pay_for(&frame(6, 8)), "in chunks of {chunk}");
            // A hundred a second are not a flood.
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(budget.pay_for(&frame(6, 8).repeat(100)));
            assert!(!budget.pay_for(&frame(6, 8)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_and_what_is_sent_pay_for_their_frames() {
        let mut budget = begun();
        for _ in 0..10_000 {
            assert!(budget.pay_for(&frame(DATA, 100)));
            // A window for the stream and one for the connection.
            budget.earn(100);
            assert!(budget.pay_for(&frame(8, 4).repeat(2)));
        }
        // Empty data frames are not a body.
        assert!(!budget.pay_for(&frame(DATA, 0).repeat(3_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn answered_pings_do_not_pay_for_themselves() {
        let mut budget = begun();
        let mut pings = 0;
        while budget.pay_for(&frame(6, 8)) {
            budget.earn(17);
            pings += 1;
        }
        assert!(pings < 5_000, "{pings}");
    }
}
