//! What a stranger can use up, and that an honest pair beside him does not notice: one test or more
//! for each row of "What a stranger can use up" in docs/operations.md, one file a theme.

mod bodies;
mod broker;
mod channels;
mod connections;
mod frames;
mod history;
mod posts;
