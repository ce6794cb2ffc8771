//! Lines of `NAME: value` in groups that an empty line ends, as mail has its headers (RFC 5322, 2.2) and Debian its control
//! files (deb-control(5)). A line that begins with a blank goes on with what is before it; that is passed over here, as
//! everything that is asked for fits on one line.

/// One group: for each name that is asked for, its first value.
pub(super) struct Fields<'a, const N: usize> {
    names: [&'static str; N],
    values: [Option<&'a str>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Calls `each` with every group in which there is one of these names. A name of one letter means another thing as a
    /// capital; others are the same however they are written. What is not UTF-8 is no line.
    pub(super) fn groups(bytes: &'a [u8], names: [&'static str; N], each: &mut dyn FnMut(&Self)) {
        let is_same = |known: &&str, name: &str| match known.len() {
            1 => *known == name,
            _ => known.eq_ignore_ascii_case(name),
        };
        let mut group = Self { names, values: [None; N] };
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                group.end(each);
                continue;
            }
            let Ok(line) = std::str::from_utf8(line) else { continue };
            if line.starts_with([' ', '\t']) {
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let at = names.iter().position(|known| is_same(known, name.trim_end()));
            if let Some(value_of) = at.map(|at| &mut group.values[at]) {
                value_of.get_or_insert(value.trim());
            }
        }
        group.end(each);
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.values[at].filter(|value| !value.is_empty())
    }

    fn end(&mut self, each: &mut dyn FnMut(&Self)) {
        if self.values.iter().any(Option::is_some) {
            each(self);
            self.values = [None; N];
        }
    }
}
