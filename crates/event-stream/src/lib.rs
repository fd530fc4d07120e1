//! Parses streams of server-sent events (WHATWG HTML §9.2), wherever the bytes are split. Used by
//! `hark listen`, `hark doctor`, the tests' listener and the load generator.
//!
//! Not a library, because the load generator reads without copying and without a runtime, and
//! because no library limits how much a server may send without ending an event (decision 30).

mod blocks;
mod reader;

pub use blocks::{Block, Blocks, TooLarge};
pub use reader::{Event, Reader};
