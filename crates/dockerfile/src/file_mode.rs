//! `--chmod` of COPY and ADD: octal as ever, or symbolic (docs.docker.com/reference/dockerfile, "COPY --chown --chmod";
//! chmod(1)). It is read once variables are known.

/// Permissions for what is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileMode {
    /// All twelve bits.
    Bits(u32),
    /// Changes to what the source has: `u=rwX,go-w`.
    Changes(String),
}

impl FileMode {
    /// Reads an expanded value; words on what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o7777);
        match bits {
            Some(bits) => Ok(Self::Bits(bits)),
            None if !is_octal && text.split(',').all(is_change) => Ok(Self::Changes(text.to_owned())),
            None => Err(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic"
            )),
        }
    }
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`.
fn is_change(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut has_change = false;
    while let Some(permissions) = rest.strip_prefix(['-', '+', '=']) {
        has_change = true;
        rest = match permissions.strip_prefix(['u', 'g', 'o']) {
            Some(rest) => rest,
            None => permissions.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']),
        };
    }
    has_change && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_bits_or_changes() {
        for (text, bits) in [("755", 0o755), ("0644", 0o644), ("4755", 0o4755), ("0", 0)] {
            assert_eq!(FileMode::parse(text), Ok(FileMode::Bits(bits)), "{text}");
        }
        for text in ["u=rwX,go=rX", "+x", "a-w", "g=u", "u+s,o-rwx", "=", "ug+rw-x"] {
            assert_eq!(FileMode::parse(text), Ok(FileMode::Changes(text.to_owned())), "{text}");
        }
        for text in ["", "64a", "10000", "888", "u", "u+q", "rwx", "u=rw,", "+7"] {
            assert!(FileMode::parse(text).is_err(), "{text}");
        }
    }
}
