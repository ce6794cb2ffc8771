//! Slips of the pen: which known name somebody may have meant.

/// The name that is one or two slips away; a third of a word may be wrong, no more.
pub fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match word.trim_start_matches('-').chars().count() {
        0..=1 => 0,
        2..=4 => 1,
        _ => 2,
    };
    let near = names.map(|name| (distance(word, name), name)).filter(|(slips, _)| *slips <= limit);
    near.min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

/// Letters to insert, drop, change or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_through() {
        let names = ["run", "copy", "workdir", "entrypoint"];
        for (word, expected) in [
            ("cpoy", Some("copy")),
            ("wrokdr", Some("workdir")),
            ("rn", Some("run")),
            ("r", None),
            ("", None),
            ("zzzzzz", None),
        ] {
            assert_eq!(closest(word, names.into_iter()), expected, "{word}");
        }
        assert_eq!(closest("--entrypont", ["--entrypoint"].into_iter()), Some("--entrypoint"));
    }
}
