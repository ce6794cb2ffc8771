//! Whose users and groups a container has (user_namespaces(7)).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

/// `--userns`, as it was decided when the container was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// The host's: nothing was said.
    #[default]
    Unsaid,
    /// The host's: that was said.
    Host,
    /// Its own: the container's 0 is the first of the range on the host.
    Own(IdRange),
    /// That of a container whose other namespaces it joins too.
    Container {
        /// Which.
        id: ContainerId,
        /// The range that one has: it is in use for as long as either of them is there.
        ids: IdRange,
    },
}

impl UserNamespace {
    /// How many ids a container has of its own that does not say: with the last of them, 65534 is mapped too, which is
    /// nobody's name in most images.
    pub const USUAL_COUNT: u32 = 1 << 16;

    /// On the host, the users and groups of its processes; `None`: they are the host's own.
    pub fn ids(&self) -> Option<IdRange> {
        match self {
            Self::Unsaid | Self::Host => None,
            Self::Own(ids) | Self::Container { ids, .. } => Some(*ids),
        }
    }
}

/// Users, and groups of the same numbers. Never empty, and without the last number of all, which means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct IdRange {
    first: u32,
    count: u32,
}

/// As it is written, before it is known to be a range.
#[derive(Deserialize)]
struct Parts {
    first: u32,
    count: u32,
}

/// What is no range of ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no range of ids: write FIRST:COUNT, as /etc/subuid has them, up to {}", u32::MAX - 1)]
pub struct IdRangeError {
    text: String,
}

impl IdRange {
    /// `None`: there is no such range.
    pub const fn new(first: u32, count: u32) -> Option<Self> {
        match first.checked_add(count) {
            Some(_) if count > 0 => Some(Self { first, count }),
            _ => None,
        }
    }

    /// The lowest of them.
    pub const fn first(self) -> u32 {
        self.first
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The first that comes after.
    pub const fn end(self) -> u32 {
        self.first + self.count
    }

    /// Some id is in both.
    pub const fn meets(self, other: Self) -> bool {
        self.first < other.end() && other.first < self.end()
    }

    /// On the host, who has this id in a container with this range; `None`: nobody has.
    pub const fn outside(self, inside: u32) -> Option<u32> {
        if inside < self.count { Some(self.first + inside) } else { None }
    }

    /// In the container, who this is on the host; `None`: nobody there.
    pub const fn inside(self, outside: u32) -> Option<u32> {
        match outside.checked_sub(self.first) {
            Some(inside) if inside < self.count => Some(inside),
            _ => None,
        }
    }
}

impl TryFrom<Parts> for IdRange {
    type Error = IdRangeError;
    fn try_from(Parts { first, count }: Parts) -> Result<Self, IdRangeError> {
        Self::new(first, count).ok_or_else(|| IdRangeError { text: format!("{first}:{count}") })
    }
}

impl FromStr for IdRange {
    type Err = IdRangeError;
    fn from_str(text: &str) -> Result<Self, IdRangeError> {
        let parts = text.split_once(':').and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
        let range = parts.and_then(|(first, count)| Self::new(first, count));
        range.ok_or_else(|| IdRangeError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_what_is_none_is_refused() {
        let range: IdRange = "100000:65536".parse().unwrap();
        assert_eq!(
            (range.first(), range.count(), range.end(), range.to_string()),
            (100_000, 65_536, 165_536, "100000:65536".to_owned())
        );
        assert_eq!([0, 65_535, 65_536].map(|id| range.outside(id)), [Some(100_000), Some(165_535), None]);
        assert_eq!([99_999, 100_000, 165_535, 165_536].map(|id| range.inside(id)), [None, Some(0), Some(65_535), None]);
        for wrong in ["", "1", "1:0", "a:1", "-1:5", "4294967295:1", "4294967294:2", "1:2:3"] {
            assert!(wrong.parse::<IdRange>().is_err(), "{wrong}");
        }
        assert_eq!("4294967294:1".parse::<IdRange>().unwrap().end(), u32::MAX);
    }

    #[test]
    fn ranges_meet_where_they_have_an_id_in_common() {
        let range = |first, count| IdRange::new(first, count).unwrap();
        for (one, other, meet) in [
            (range(10, 5), range(15, 5), false),
            (range(10, 5), range(14, 1), true),
            (range(10, 5), range(0, 11), true),
            (range(10, 5), range(0, 10), false),
            (range(0, u32::MAX), range(7, 1), true),
        ] {
            assert_eq!((one.meets(other), other.meets(one)), (meet, meet), "{one} {other}");
        }
    }

    #[test]
    fn a_row_says_what_was_decided() {
        let own = UserNamespace::Own("100000:65536".parse().unwrap());
        let row = serde_json::to_string(&own).unwrap();
        assert_eq!(row, r#"{"own":{"first":100000,"count":65536}}"#);
        assert_eq!(serde_json::from_str::<UserNamespace>(&row).unwrap(), own);
        assert!(serde_json::from_str::<UserNamespace>(r#"{"own":{"first":1,"count":0}}"#).is_err());
        assert_eq!(serde_json::to_string(&UserNamespace::Unsaid).unwrap(), r#""unsaid""#);
    }
}
