//! Writers that are stopped between any two of their statements, or whose statements are refused.

mod control;
mod refused;
mod replica;
mod single;
mod twice;
mod writers;
