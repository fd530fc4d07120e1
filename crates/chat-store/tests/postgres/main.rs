//! The PostgreSQL store from outside: its contract, and what happens when things break.

mod contract;
mod support;
