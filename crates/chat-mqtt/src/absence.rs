use std::time::Duration;

use tokio::time::Instant;

/// How long a broker may be away before this is logged. A broker that starts together with the services,
/// or restarts, is back by then, and nobody has to do anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// Decides when to log that there is no connection.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
    told: bool,
}

impl Absence {
    /// Notes that an attempt failed or a connection ended, which may have `lasted`. Returns whether to log
    /// it now.
    pub(crate) fn lost(&mut self, lasted: bool) -> bool {
        if lasted {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.told || since.elapsed() < PATIENCE {
            return false;
        }
        self.told = true;
        true
    }

    /// Notes that there is a connection. It may end at once, so the absence is not over yet.
    pub(crate) fn connected(&mut self) {
        self.told = false;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn broker_that_answers_within_two_seconds_is_not_told_of() {
        let mut absence = Absence::default();
        for _ in 0..3 {
            for _ in 0..19 {
                assert!(!absence.lost(false));
                advance(Duration::from_millis(100)).await;
            }
            absence.connected();
            advance(100 * PATIENCE).await;
            assert!(!absence.lost(true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn longer_absence_is_told_once() {
        let mut absence = Absence::default();
        assert!(!absence.lost(false));
        advance(PATIENCE).await;
        assert!(absence.lost(false));
        advance(PATIENCE).await;
        assert!(!absence.lost(false));
        absence.connected();
        assert!(!absence.lost(true));
    }

    #[tokio::test(start_paused = true)]
    async fn broker_that_takes_connections_and_ends_them_is_told_of() {
        let mut absence = Absence::default();
        absence.connected();
        assert!(!absence.lost(false));
        advance(PATIENCE).await;
        for _ in 0..2 {
            absence.connected();
            assert!(absence.lost(false));
        }
    }
}
