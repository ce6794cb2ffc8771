//! Names for containers that were given none: an adjective and someone who built the systems that we stand on.

use dozen_model::ContainerName;

const ADJECTIVES: [&str; 48] = [
    "able", "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "crisp", "daring",
    "eager", "fair", "fervent", "fond", "gentle", "glad", "golden", "hardy", "honest", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "merry", "mighty", "modest", "nimble", "noble", "patient", "placid", "proud",
    "quick", "quiet", "serene", "sharp", "silent", "steady", "sunny", "swift", "tender", "tidy", "vivid", "witty",
];
const PEOPLE: [&str; 40] = [
    "allen",
    "babbage",
    "backus",
    "bartik",
    "blum",
    "boole",
    "cerf",
    "chen",
    "church",
    "codd",
    "curie",
    "dahl",
    "dijkstra",
    "engelbart",
    "floyd",
    "goldberg",
    "gray",
    "hamilton",
    "hamming",
    "hoare",
    "hopper",
    "johnson",
    "kay",
    "knuth",
    "lamport",
    "liskov",
    "lovelace",
    "mccarthy",
    "milner",
    "naur",
    "neumann",
    "perlis",
    "perlman",
    "ritchie",
    "shannon",
    "sutherland",
    "thompson",
    "turing",
    "wirth",
    "zuse",
];

/// The `attempt`-th proposal drawn with `seed`; after some attempts a number follows, so that there is always a free one.
pub(crate) fn propose(seed: u64, attempt: u32) -> ContainerName {
    let mixed = (seed ^ u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let adjective = ADJECTIVES[(mixed >> 33) as usize % ADJECTIVES.len()];
    let person = PEOPLE[(mixed >> 48) as usize % PEOPLE.len()];
    let number = if attempt < 8 { String::new() } else { format!("{}", mixed >> 20 & 0xffff) };
    format!("{adjective}_{person}{number}").parse().expect("made of letters, digits and an underscore")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_names_and_do_not_run_out() {
        let names: std::collections::HashSet<_> = (0..5000).map(|attempt| propose(42, attempt)).collect();
        assert!(names.len() > 4000, "{}", names.len());
    }
}
