use rand::SeedableRng;
use rand::rngs::StdRng;

/// Chance for a test that breaks things at random; the seed is shown when the
/// test fails, and given in the variable `TEST_SEED` it is used again.
#[must_use]
pub fn seeded_random() -> StdRng {
    let given = std::env::var("TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| {
        seed.parse().expect("TEST_SEED is a number")
    });
    println!("TEST_SEED={seed} repeats these choices");
    StdRng::seed_from_u64(seed)
}
