//! The PostgreSQL store from outside: its contract, and what happens when things break.

mod connections;
mod contract;
mod damage;
mod faults;
mod forgotten;
#[path = "../it/posts.rs"]
mod posts;
mod several;
mod start;
mod support;
mod tls;
