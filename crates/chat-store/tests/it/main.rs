//! The SQLite store from outside: its contract, and what happens when things break.

mod backup;
mod broken_pages;
mod contract;
mod copies;
mod crash;
mod damage;
mod flipped_log;
mod folder;
mod full;
mod keys;
mod model;
mod places;
mod posts;
mod put_back;
mod retention;
mod support;
