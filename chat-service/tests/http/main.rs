//! Tests of chat-service over HTTP, with a real store and a real broker.

mod answers;
mod bad_input;
mod broker_away;
mod command;
mod damage;
mod history;
mod limits;
mod newcomers;
mod older;
mod operations;
mod postgres;
mod posting;
mod restart;
mod store_away;
mod support;
