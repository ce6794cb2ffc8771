//! Huffman codes of limited length (RFC 1951, section 3.2.2), of how often each symbol is there.

/// A code, its bits in the order in which they are written, and how many they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) bits: u16,
    pub(crate) length: u8,
}

/// Codes for all symbols that are there; of fewer than two, two all the same, since some readers want a code to be full.
/// `limit`: bits of the longest.
pub(crate) fn codes<const N: usize>(counts: &mut [u32; N], limit: usize) -> [Code; N] {
    for symbol in 0..2 {
        if counts.iter().filter(|count| **count > 0).count() < 2 && counts[symbol] == 0 {
            counts[symbol] = 1;
        }
    }
    let lengths = lengths(counts, limit);
    // The first code of each length.
    let mut next = [0u16; 16];
    let mut first = 0;
    for (length, next) in next.iter_mut().enumerate().skip(1) {
        *next = first;
        let of_it = lengths.iter().filter(|known| usize::from(**known) == length).count() as u16;
        first = (first + of_it) << 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return Code::default();
        }
        let code = next[usize::from(length)];
        next[usize::from(length)] += 1;
        // Codes go from their highest bit on, all else from its lowest.
        Code { bits: code.reverse_bits() >> (16 - length), length }
    })
}

/// How long the codes are. Two symbols at least are there.
fn lengths<const N: usize>(counts: &[u32; N], limit: usize) -> [u8; N] {
    let mut used: Vec<(u32, usize)> =
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(symbol, count)| (*count, symbol)).collect();
    used.sort_unstable();
    // The tree, by two queues: leaves as they are sorted, and nodes, which come in order by themselves. Each has its
    // parent's number.
    let leaves = used.len();
    let mut weights: Vec<u64> = used.iter().map(|(count, _)| u64::from(*count)).collect();
    let mut parents = vec![0; 2 * leaves - 1];
    let (mut leaf, mut node) = (0, leaves);
    while weights.len() < 2 * leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let is_leaf = leaf < leaves && (node == weights.len() || weights[leaf] <= weights[node]);
            let child = if is_leaf { &mut leaf } else { &mut node };
            parents[*child] = weights.len();
            weight += weights[*child];
            *child += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0usize; parents.len()];
    for number in (0..parents.len() - 1).rev() {
        depths[number] = depths[parents[number]] + 1;
    }
    let mut of_length = vec![0usize; limit + 1];
    for depth in &depths[..leaves] {
        of_length[(*depth).min(limit)] += 1;
    }
    fit(&mut of_length, limit);
    // The rarest symbols get the longest codes.
    let mut lengths = [0; N];
    let mut symbols = used.iter().map(|(_, symbol)| *symbol);
    for length in (1..=limit).rev() {
        for symbol in symbols.by_ref().take(of_length[length]) {
            lengths[symbol] = length as u8;
        }
    }
    lengths
}

/// Codes that were cut to the limit are too many for it: others get longer, until they fill it exactly (Kraft).
fn fit(of_length: &mut [usize], limit: usize) {
    let full = 1usize << limit;
    let mut taken: usize = (1..=limit).map(|length| of_length[length] << (limit - length)).sum();
    while taken > full {
        // One of the longest goes below the longest of the others, in whose place they are two now.
        let Some(length) = (1..limit).rev().find(|length| of_length[*length] > 0) else { return };
        of_length[limit] -= 1;
        of_length[length] -= 1;
        of_length[length + 1] += 2;
        taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled<const N: usize>(codes: &[Code; N], limit: usize) -> usize {
        codes.iter().filter(|code| code.length > 0).map(|code| 1 << (limit - usize::from(code.length))).sum()
    }

    #[test]
    fn the_codes_of_the_standards_example() {
        // RFC 1951, section 3.2.2: lengths 3, 3, 3, 3, 3, 2, 4, 4.
        let mut counts = [30, 30, 30, 30, 30, 70, 10, 10];
        let codes = codes(&mut counts, 15);
        let wanted = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111];
        for (code, want) in codes.iter().zip(wanted) {
            assert_eq!(code.bits.reverse_bits() >> (16 - code.length), want);
        }
    }

    #[test]
    fn a_single_symbol_has_another_beside_it() {
        for there in [None, Some(0), Some(1), Some(5)] {
            let mut counts = [0; 8];
            if let Some(there) = there {
                counts[there] = 9;
            }
            let codes = codes(&mut counts, 7);
            assert_eq!((filled(&codes, 7), codes.iter().filter(|code| code.length == 1).count()), (128, 2));
        }
    }

    proptest! {
        #[test]
        fn codes_fill_what_there_is(exponents in proptest::collection::vec(0u32..28, 286), limit in 9usize..=15) {
            let mut counts = [0; 286];
            for (count, exponent) in counts.iter_mut().zip(exponents) {
                *count = (1 << exponent) - 1;
            }
            let codes = codes(&mut counts, limit);
            prop_assert!(codes.iter().all(|code| usize::from(code.length) <= limit));
            prop_assert_eq!(filled(&codes, limit), 1 << limit);
            for (count, code) in counts.iter().zip(&codes) {
                prop_assert_eq!(*count > 0, code.length > 0);
            }
        }
    }
}
