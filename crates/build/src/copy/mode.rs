//! `--chmod`: what becomes of a mode (chmod(1), "Each MODE is of the form"). No umask is heeded.

use dozen_dockerfile::FileMode;

/// The twelve bits, changed. `X` gives the right to execute to directories and to what anyone may execute already.
pub(super) fn changed(mode: u32, is_directory: bool, change: &FileMode) -> u32 {
    match change {
        FileMode::Bits(bits) => bits & 0o7777,
        FileMode::Changes(text) => {
            text.split(',').fold(mode & 0o7777, |mode, clause| apply(mode, is_directory, clause))
        }
    }
}

/// `[ugoa]*` and any number of `[-+=]` with permissions, each on what the one before has left.
fn apply(mut mode: u32, is_directory: bool, clause: &str) -> u32 {
    let who_end = clause.find(['-', '+', '=']).unwrap_or(clause.len());
    let (who, mut rest) = clause.split_at(who_end);
    let all = who.is_empty() || who.contains('a');
    let is_for = |class: char| all || who.contains(class);
    let classes = [('u', 6), ('g', 3), ('o', 0)];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['-', '+', '=']).map_or(rest.len(), |end| end + 1);
        let permissions = &rest[1..end];
        rest = &rest[end..];
        let mut bits = 0;
        let mut reach = 0;
        for (class, shift) in classes.into_iter().filter(|(class, _)| is_for(*class)) {
            let executes = is_directory || mode & 0o111 != 0;
            for permission in permissions.chars() {
                bits |= match permission {
                    'r' => 4 << shift,
                    'w' => 2 << shift,
                    'x' => 1 << shift,
                    'X' if executes => 1 << shift,
                    'u' => (mode >> 6 & 7) << shift,
                    'g' => (mode >> 3 & 7) << shift,
                    'o' => (mode & 7) << shift,
                    's' if class == 'u' => 0o4000,
                    's' if class == 'g' => 0o2000,
                    't' if all || class == 'o' => 0o1000,
                    _ => 0,
                };
            }
            reach |= 7 << shift
                | match class {
                    'u' => 0o4000,
                    'g' => 0o2000,
                    _ if all => 0o1000,
                    _ => 0,
                };
        }
        // A directory keeps these bits unless they are named.
        if is_directory && operator == '=' {
            reach &= !0o6000;
        }
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !reach | bits,
        };
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mode: u32, is_directory: bool, text: &str, expected: u32) {
        let change = FileMode::parse(text).unwrap();
        let changed = changed(mode, is_directory, &change);
        assert_eq!(changed, expected, "{mode:o} with {text} is {changed:o}, not {expected:o}");
    }

    #[test]
    fn bits_are_taken_as_they_are() {
        check(0o4755, false, "644", 0o644);
        check(0o600, true, "1777", 0o1777);
        check(0o600, true, "0", 0);
    }

    #[test]
    fn changes_are_made_in_order() {
        check(0o644, false, "+x", 0o755);
        check(0o644, false, "u+x,g-r", 0o704);
        check(0o777, false, "go-w", 0o755);
        check(0o644, false, "a=", 0);
        check(0o640, false, "o=g", 0o644);
        check(0o604, false, "g=u,o-r", 0o660);
        check(0o644, false, "u=rwX,go=rX", 0o644);
        check(0o744, false, "u=rwX,go=rX", 0o755);
        check(0o600, true, "u=rwX,go=rX", 0o755);
        check(0o755, false, "u+s,o-rx", 0o4750);
        check(0o755, false, "ug+s", 0o6755);
        check(0o777, true, "+t", 0o1777);
        check(0o1777, true, "-t", 0o777);
        check(0o6755, false, "a=rx", 0o555);
        check(0o6755, true, "a=rx", 0o6555);
        check(0o6755, true, "a=rxs", 0o6555);
        check(0o755, false, "=r", 0o444);
        check(0o000, false, "u+r+w-r", 0o200);
        check(0o644, false, "u+X", 0o644);
        check(0o654, false, "u+X", 0o754);
    }
}
