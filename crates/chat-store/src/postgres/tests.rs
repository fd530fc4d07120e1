//! Writers that are stopped between any two of their statements, or whose statements are refused; tables that are held.

mod control;
mod held;
mod refused;
mod replica;
mod single;
mod stops;
mod twice;
mod writers;

pub(super) use stops::{MayBeStopped, Stops};
