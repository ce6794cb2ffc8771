//! What stands for lengths and distances of matches (RFC 1951, section 3.2.5).

/// The end of a block.
pub(crate) const END: usize = 256;
/// Literals, the end, lengths.
pub(crate) const LITERALS: usize = 286;
pub(crate) const DISTANCES: usize = 30;
/// Symbols for code lengths.
pub(crate) const CODE_LENGTHS: usize = 19;
/// In this order their own lengths are written (section 3.2.7).
pub(crate) const ORDER: [usize; CODE_LENGTHS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
pub(crate) const SHORTEST: usize = 3;
pub(crate) const LONGEST: usize = 258;

/// A symbol, and bits that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) symbol: usize,
    pub(crate) extra: u32,
    pub(crate) extra_bits: u32,
}

/// Of a match of 3 to 258 bytes.
#[inline]
pub(crate) fn of_length(length: u32) -> Symbol {
    let over = length - SHORTEST as u32;
    match over {
        0..8 => Symbol { symbol: 257 + over as usize, extra: 0, extra_bits: 0 },
        255 => Symbol { symbol: 285, extra: 0, extra_bits: 0 },
        _ => {
            // Four symbols for each power of two.
            let extra_bits = over.ilog2() - 2;
            let symbol = 257 + 4 * (extra_bits as usize + 1) + (over >> extra_bits & 3) as usize;
            Symbol { symbol, extra: over & ((1 << extra_bits) - 1), extra_bits }
        }
    }
}

/// Of a match that lies 1 to 32,768 bytes back.
#[inline]
pub(crate) fn of_distance(distance: u32) -> Symbol {
    let over = distance - 1;
    match over {
        0..4 => Symbol { symbol: over as usize, extra: 0, extra_bits: 0 },
        _ => {
            // Two symbols for each power of two.
            let extra_bits = over.ilog2() - 1;
            let symbol = 2 * (extra_bits as usize + 1) + (over >> extra_bits & 1) as usize;
            Symbol { symbol, extra: over & ((1 << extra_bits) - 1), extra_bits }
        }
    }
}

/// Bits that follow a symbol for a length.
pub(crate) fn bits_after_length(symbol: usize) -> u32 {
    match symbol {
        265..285 => (symbol as u32 - 261) / 4,
        _ => 0,
    }
}

/// Bits that follow a symbol for a distance.
pub(crate) fn bits_after_distance(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_the_tables_of_the_standard() {
        let symbol = |symbol, extra, extra_bits| Symbol { symbol, extra, extra_bits };
        for (length, want) in [
            (3, symbol(257, 0, 0)),
            (10, symbol(264, 0, 0)),
            (11, symbol(265, 0, 1)),
            (12, symbol(265, 1, 1)),
            (18, symbol(268, 1, 1)),
            (19, symbol(269, 0, 2)),
            (114, symbol(279, 15, 4)),
            (115, symbol(280, 0, 4)),
            (131, symbol(281, 0, 5)),
            (257, symbol(284, 30, 5)),
            (258, symbol(285, 0, 0)),
        ] {
            assert_eq!(of_length(length), want, "{length}");
        }
        for (distance, want) in [
            (1, symbol(0, 0, 0)),
            (4, symbol(3, 0, 0)),
            (5, symbol(4, 0, 1)),
            (8, symbol(5, 1, 1)),
            (9, symbol(6, 0, 2)),
            (24576, symbol(28, 8191, 13)),
            (24577, symbol(29, 0, 13)),
            (32768, symbol(29, 8191, 13)),
        ] {
            assert_eq!(of_distance(distance), want, "{distance}");
        }
        for length in SHORTEST as u32..=LONGEST as u32 {
            let found = of_length(length);
            assert_eq!(bits_after_length(found.symbol), found.extra_bits, "{length}");
        }
        for distance in 1..=32768 {
            let found = of_distance(distance);
            assert_eq!(bits_after_distance(found.symbol), found.extra_bits, "{distance}");
        }
    }
}
