//! The durable log of every channel: what is stored here reaches every listener.
//!
//! [`Store`] is what the services ask; [`SqliteStore`] is the implementation for one machine. The
//! [`contract`] suite (feature `contract`) checks any implementation. The crate knows nothing of
//! HTTP or MQTT, keeps no listeners, and never looks into a message.
//!
//! ```
//! use chat_model::NewMessage;
//! use chat_store::{Append, Appended, Log, Owner, SqliteOptions, SqliteStore, Store};
//! use clock::SystemClock;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let store = SqliteStore::open(&SqliteOptions::new(dir.path(), SystemClock::shared()))?;
//! let stored = store
//!     .append(Append {
//!         channel: uuid::Uuid::new_v4().into(),
//!         message: NewMessage::text("hello"),
//!         key: None,
//!         owner: Owner::default(),
//!         max_event_bytes: 64 * 1024,
//!     })
//!     .await?;
//! assert!(matches!(stored, Appended::Stored { seq: 1, .. }));
//! store.close().await;
//! # Ok::<(), chat_store::OpenError>(())
//! # }).unwrap();
//! ```
#![warn(missing_docs)]

mod alarm;
mod checksum;
#[cfg(feature = "contract")]
pub mod contract;
mod counters;
mod damage;
mod error;
mod expiry_clock;
mod follower;
mod key_shares;
mod log;
mod next_event;
mod open_error;
mod outbox;
mod page;
mod position;
pub mod postgres;
mod queue;
mod retention;
mod seldom;
mod sender_keys;
mod sqlite;
mod stats;
mod store;

pub use error::{ReusedKey, Share, StoreError};
pub use log::{Append, Appended, IdempotencyKey, Log, Owner, PageLimit, PageRange, StoredPage};
pub use open_error::OpenError;
pub use outbox::{Outbox, Unpublished};
pub use position::Position;
pub use postgres::{PostgresOptions, PostgresStore};
pub use retention::{KeyMemory, Retention};
pub use sqlite::{
    Checked, SqliteOptions, SqliteStore, backup, backup_progress, check, new_epoch, restore,
};
pub use stats::StoreStats;
pub use store::Store;
