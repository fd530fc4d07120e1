//! The broker from outside.

mod client;
mod command;
mod slow_clients;
mod strangers;
