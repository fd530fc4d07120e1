//! Writers that are stopped between any two of their statements.

mod control;
mod single;
mod writers;
