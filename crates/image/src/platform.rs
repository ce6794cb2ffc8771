//! What an image's programs run on: `os[/architecture[/variant]]`, and which of several platforms fits best.
//!
//! Names and order are those of the OCI image-spec (image-index.md, "platform", after Go's GOOS and GOARCH) and of
//! containerd's `platforms` package, which Docker, nerdctl and buildkit choose by.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A platform in the usual words: `amd64` for `x86_64`, and no variant that is the only one or the usual one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`…
    pub architecture: String,
    /// `v7` of `arm`; `None` if there is no other, or if it is arm64's v8 or amd64's v1.
    pub variant: Option<String>,
}

/// A text that is no platform. The first words are containerd's, which clients show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is an invalid OS or architecture: {why}")]
pub struct PlatformError {
    text: String,
    why: &'static str,
}

/// As an index writes it.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Ok(Self::new(&written.os, &written.architecture, written.variant.as_deref()))
    }
}

impl Platform {
    /// A platform in the usual words.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.as_str()) {
            ("i386" | "i686", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => return Self::of(&os, architecture, variant),
        };
        Self::of(&os, architecture, variant)
    }

    fn of(os: &str, architecture: &str, variant: &str) -> Self {
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// What an image's configuration says that it is for.
    pub fn of_config(raw: &serde_json::Value) -> Self {
        let text = |key: &str| raw.get(key).and_then(serde_json::Value::as_str);
        Self::new(text("os").unwrap_or("linux"), text("architecture").unwrap_or_default(), text("variant"))
    }

    /// This machine's.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// How well programs for `other` run on this platform: 0 is best; `None`: not at all. A 64-bit processor runs what
    /// is for its 32-bit sibling, and a newer variant what is for an older one.
    pub fn rank(&self, other: &Self) -> Option<usize> {
        if self.os != other.os {
            return None;
        }
        self.runs().iter().position(|platform| platform == other)
    }

    /// Whether whoever names this platform means `other`. Without a variant any will do.
    pub fn names(&self, other: &Self) -> bool {
        (&self.os, &self.architecture) == (&other.os, &other.architecture)
            && (self.variant.is_none() || self.variant == other.variant)
    }

    /// All platforms whose programs run on this one, best first.
    fn runs(&self) -> Vec<Self> {
        let mut runs = vec![self.clone()];
        let number = |variant: &Option<String>| -> u32 {
            let text = variant.as_deref().and_then(|text| text.strip_prefix('v')).unwrap_or_default();
            text.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let arm = |from: u32| (5..=from).rev().map(|version| Self::of(&self.os, "arm", &format!("v{version}")));
        match self.architecture.as_str() {
            "amd64" => {
                let below = (1..number(&self.variant).clamp(1, 9)).rev();
                runs.extend(below.map(|version| Self::new(&self.os, "amd64", Some(&format!("v{version}")))));
                runs.push(Self::of(&self.os, "386", ""));
            }
            "arm64" => {
                if self.variant.is_some() {
                    runs.push(Self::of(&self.os, "arm64", ""));
                }
                runs.extend(arm(8));
            }
            "arm" => runs.extend(arm(number(&self.variant).clamp(5, 9) - 1)),
            _ => {}
        }
        runs
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = |why| PlatformError { text: text.chars().take(100).collect(), why };
        let parts: Vec<_> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        if parts.len() > 3 || !parts.iter().all(is_word) {
            return Err(wrong("want os/architecture or os/architecture/variant, as in linux/arm64"));
        }
        let host = Self::host();
        match parts.as_slice() {
            [one] if is_os(one) => Ok(Self { os: Self::new(one, "", None).os, ..host }),
            [one] => {
                let platform = Self::new(&host.os, one, None);
                let is_known = ARCHITECTURES.contains(&platform.architecture.as_str());
                is_known.then_some(platform).ok_or_else(|| wrong("dozen knows neither"))
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(wrong("it is empty")),
        }
    }
}

/// Of GOOS and GOARCH, what a single word may mean.
const ARCHITECTURES: [&str; 12] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"];

fn is_os(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "linux" | "windows" | "darwin" | "macos" | "freebsd" | "wasi")
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<Platform>().map_or_else(|error| error.to_string(), |platform| platform.to_string())
    }

    #[test]
    fn platforms_have_many_spellings() {
        let host = Platform::host().architecture;
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("arm64", "linux/arm64"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
        assert_eq!(parsed("linux"), format!("linux/{host}"));
        for text in ["", "/", "linux/", "a/b/c/d", "quantum", "linux/a b", "linux/../x/y"] {
            assert!(parsed(text).contains("invalid OS or architecture"), "{text}: {}", parsed(text));
        }
    }

    #[test]
    fn the_best_that_runs_is_chosen() {
        let of = |text: &str| text.parse::<Platform>().unwrap();
        for (host, others) in [
            ("linux/amd64", &["linux/amd64", "linux/386"][..]),
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
            ("linux/arm64", &["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm/v7", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/s390x", &["linux/s390x"]),
        ] {
            let ranks: Vec<_> = others.iter().map(|other| of(host).rank(&of(other))).collect();
            assert_eq!(ranks, (0..others.len()).map(Some).collect::<Vec<_>>(), "{host}");
        }
        for (host, other) in [
            ("linux/amd64", "linux/arm64"),
            ("linux/amd64", "windows/amd64"),
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/386", "linux/amd64"),
        ] {
            assert_eq!(of(host).rank(&of(other)), None, "{host} {other}");
        }
        assert!(of("linux/amd64").names(&of("linux/amd64/v2")) && !of("linux/amd64/v2").names(&of("linux/amd64")));
        assert!(!of("linux/arm/v6").names(&of("linux/arm/v7")));
    }
}
