use std::net::SocketAddr;

use super::folder::Folder;
use super::programs::{self, program};
use super::{PATIENCE, Postgres};
use crate::{ensure, eventually};

impl Postgres {
    /// Starts a streaming replica of this one, which takes what is committed here
    /// a moment later and answers questions, but takes no writes.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn replica(&self) -> Self {
        self.replica_through(self.address()).await
    }

    /// As [`replica`](Self::replica), which reaches this one by another address,
    /// such as a [`FaultProxy`](crate::FaultProxy)'s: when that stalls, the
    /// replica lags, and lacks what it has not received when it is promoted.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn replica_through(&self, address: SocketAddr) -> Self {
        let folder = Folder::new();
        let mut copy = program("pg_basebackup");
        copy.arg("--pgdata").arg(folder.data());
        copy.args(["--dbname", &Self::url_at(address, "postgres")]);
        // With `--write-recovery-conf` the copy follows whom it was made of.
        copy.args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync"]);
        programs::run(copy).await;
        Self::of(folder).await
    }

    /// Waits until this replica has everything that is committed on its primary.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub async fn catch_up_with(&self, primary: &Self) {
        let end = primary.run("postgres", "SELECT pg_current_wal_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        eventually!(PATIENCE, {
            let caught_up = self.run("postgres", &replayed).await == "t";
            ensure!(caught_up, "the replica has not replayed up to {end}");
            Ok(())
        });
    }

    /// Makes this replica take writes, on a new timeline; it follows nobody any more.
    ///
    /// # Panics
    /// When it is no replica, or does not get there.
    pub async fn promote(&self) {
        let wait = "SELECT pg_promote(true, 60)";
        let promoted = self.run("postgres", wait).await == "t";
        assert!(promoted, "not promoted: {}", self.log());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaultProxy;

    #[tokio::test]
    async fn a_replica_that_was_cut_off_lacks_the_newest_when_it_is_promoted() {
        let mut primary = Postgres::start().await;
        let link = FaultProxy::start(primary.address()).await;
        let replica = primary.replica_through(link.address()).await;
        primary.run("postgres", "CREATE TABLE t (n int)").await;
        replica.catch_up_with(&primary).await;
        link.stall();
        primary.run("postgres", "INSERT INTO t VALUES (7)").await;
        assert_eq!(replica.run("postgres", "SELECT n FROM t").await, "");
        primary.kill().await;
        replica.promote().await;
        replica.run("postgres", "INSERT INTO t VALUES (8)").await;
        assert_eq!(replica.run("postgres", "SELECT n FROM t").await, "8");
    }
}
