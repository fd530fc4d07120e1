//! The time of what every message passes through: `cargo bench -p bench --bench hot_functions`.

mod functions;

use bench::Function;
use divan::Bencher;

use functions::{COMMITS, FUNCTIONS};

fn main() {
    divan::main();
}

#[divan::bench(args = FUNCTIONS)]
fn function(bencher: Bencher<'_, '_>, function: &Function) {
    bencher.bench_local((function.prepare)());
}

#[divan::bench(args = COMMITS, sample_count = 50, sample_size = 1)]
fn store(bencher: Bencher<'_, '_>, function: &Function) {
    bencher.bench_local((function.prepare)());
}
