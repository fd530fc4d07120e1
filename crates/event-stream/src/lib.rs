//! Reads streams of server-sent events (WHATWG HTML, section 9.2) from bytes that are cut anywhere:
//! for `hark listen` and `hark doctor`, for the listener of the tests, and for the load generator.
//!
//! Own code, because the load generator reads without copying and without a runtime, and because no
//! library bounds what a server may send without ending an event (decision 30).

mod blocks;
mod reader;

pub use blocks::{Block, Blocks, TooLarge};
pub use reader::{Event, Reader};
