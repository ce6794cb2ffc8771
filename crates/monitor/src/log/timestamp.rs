//! RFC 3339 timestamps in UTC with nine digits of fraction, formatted by hand: the monitor carries no tables
//! of time zones.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// `2026-01-01T00:00:00.000000000Z` has as many bytes.
pub const LENGTH_BYTES: usize = 30;

/// Now, as RFC 3339 with nanoseconds.
pub fn now() -> [u8; LENGTH_BYTES] {
    format(clock_gettime(ClockId::Realtime))
}

/// Now, as seconds and nanoseconds since 1970.
pub fn time_now() -> Timespec {
    clock_gettime(ClockId::Realtime)
}

/// Formats seconds since 1970. Times outside the years 0 to 9999 are cut to the nearest that can be written.
pub fn format(time: Timespec) -> [u8; LENGTH_BYTES] {
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let seconds = time.tv_sec.clamp(FIRST, LAST);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(day);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value.rem_euclid(10)) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3_600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    put(20, 9, time.tv_nsec.clamp(0, 999_999_999));
    text
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01.
/// The algorithm is "civil_from_days" of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms":
/// years begin in March, so that the leap day is the last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tv_sec: i64, tv_nsec: i64) -> String {
        String::from_utf8(format(Timespec { tv_sec, tv_nsec }).to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        for (seconds, nanoseconds, want) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_767_225_600, 120_000_000, "2026-01-01T00:00:00.120000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (-1, 5, "1969-12-31T23:59:59.000000005Z"),
            (i64::MAX, 0, "9999-12-31T23:59:59.000000000Z"),
            (i64::MIN, 0, "0000-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(text(seconds, nanoseconds), want);
        }
    }

    proptest::proptest! {
        /// A day later is the next day of the calendar.
        #[test]
        fn order_is_kept(seconds in -62_167_219_200_i64..253_402_300_798) {
            proptest::prop_assert!(text(seconds, 0) < text(seconds + 1, 0));
        }
    }
}
