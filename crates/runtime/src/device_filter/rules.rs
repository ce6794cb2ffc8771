//! What a spec says about devices, read; and for version 1's controller.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{ALL, MAKE, READ, WRITE};
use crate::error::RuntimeError;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) target: Target,
    /// BPF_DEVCG_ACC_*.
    pub(super) access: i32,
}

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// All access to everything: it makes all before it void (cgroup-v1/devices.rst).
    Everything,
    Devices {
        kind: Kind,
        /// `None`: any.
        major: Option<u32>,
        minor: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Character,
}

impl Rule {
    pub(super) fn new(rule: &LinuxDeviceCgroup) -> Result<Self, RuntimeError> {
        let refused = |what: String| RuntimeError::Invalid(format!("linux.resources.devices: {what}"));
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MAKE,
                other => return Err(refused(format!("access {other:?} is none of r, w and m"))),
            };
        }
        let access = if access == 0 { ALL } else { access };
        // -1 is how many a tool writes "any".
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => {
                u32::try_from(number).map(Some).map_err(|_| refused(format!("{number} is no device number")))
            }
        };
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let kind = match rule.typ() {
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Character,
            // Version 1's controller would take it for all access to everything, whatever it says besides.
            None | Some(LinuxDeviceType::A) if (major, minor, access) != (None, None, ALL) => {
                return Err(refused(
                    "a rule without a type, or of type a, is for all access (rwm) to all devices".to_owned(),
                ));
            }
            None | Some(LinuxDeviceType::A) => {
                return Ok(Self { allow: rule.allow(), target: Target::Everything, access: ALL });
            }
            Some(LinuxDeviceType::P) => return Err(refused("a type is a, b or c".to_owned())),
        };
        let target = Target::Devices { kind, major, minor };
        Ok(Self { allow: rule.allow(), target, access })
    }

    /// `c 1:3 rw`, as devices.allow and devices.deny take it.
    fn line(&self) -> String {
        let Target::Devices { kind, major, minor } = self.target else { return "a".to_owned() };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let letters: String = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|l| l.1)
            .collect();
        let kind = if kind == Kind::Block { 'b' } else { 'c' };
        format!("{kind} {}:{} {letters}", number(major), number(minor))
    }
}

impl Target {
    /// All that the other is about is this about too.
    fn covers(self, other: Self) -> bool {
        let (Self::Devices { kind, major, minor }, Self::Devices { kind: k, major: a, minor: i }) = (self, other)
        else {
            return self == Self::Everything;
        };
        kind == k && (major.is_none() || major == a) && (minor.is_none() || minor == i)
    }

    fn meets(self, other: Self) -> bool {
        let (Self::Devices { kind, major, minor }, Self::Devices { kind: k, major: a, minor: i }) = (self, other)
        else {
            return true;
        };
        let meet = |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
        kind == k && meet(major, a) && meet(minor, i)
    }
}

/// What is written for version 1's controller, in order: whether to devices.allow (or else devices.deny), and the line.
///
/// The controller keeps a default and a list of exceptions from it, and takes an exception back only where it reads just
/// like that; anything else it passes over without a word. So the list is worked out here, and what would need an
/// exception from an exception is refused.
pub(crate) fn lines_of_version_1(rules: &[LinuxDeviceCgroup]) -> Result<Vec<(bool, String)>, RuntimeError> {
    // Nothing is allowed but by a rule, as with version 2. Without any rule there is nothing to be said.
    let nothing = Rule { allow: false, target: Target::Everything, access: ALL };
    let (mut default, mut exceptions) = (nothing, Vec::<Rule>::new());
    for rule in rules {
        let rule = Rule::new(rule)?;
        if rule.target == Target::Everything {
            (default, exceptions) = (rule, Vec::new());
            continue;
        }
        if default.allow != rule.allow {
            match exceptions.iter_mut().find(|known| known.target == rule.target) {
                Some(known) => known.access |= rule.access,
                None => exceptions.push(rule),
            }
            continue;
        }
        let overlaps = |known: &&mut Rule| known.access & rule.access != 0 && rule.target.meets(known.target);
        for known in exceptions.iter_mut().filter(overlaps) {
            if !rule.target.covers(known.target) {
                return Err(RuntimeError::Invalid(format!(
                    "linux.resources.devices: version 1 of cgroups cannot except {:?} from {:?}",
                    rule.line(),
                    known.line()
                )));
            }
            known.access &= !rule.access;
        }
        exceptions.retain(|known| known.access != 0);
    }
    let default = (!rules.is_empty()).then_some(default);
    Ok(default.iter().chain(&exceptions).map(|rule| (rule.allow, rule.line())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rules: &str) -> Result<Vec<String>, String> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(rules).unwrap();
        let line = |(allow, line): (bool, String)| format!("{}{line}", if allow { '+' } else { '-' });
        let lines = lines_of_version_1(&rules).map_err(|error| error.to_string())?;
        Ok(lines.into_iter().map(line).collect())
    }

    #[track_caller]
    fn check(rules: &str, expected: &[&str]) {
        assert_eq!(lines(rules).unwrap(), expected, "{rules}");
    }

    #[test]
    fn rules_become_a_default_and_exceptions() {
        check("[]", &[]);
        check(
            r#"[{"allow": true, "type": "c", "major": 5, "access": "r"}, {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}, {"allow": true, "type": "b"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "w"}]"#,
            &["-a", "+c 1:3 rw", "+b *:* rwm"],
        );
        // What is narrower goes with what is taken back.
        check(
            r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3},
                {"allow": true, "type": "b", "major": 8}, {"allow": false, "type": "c", "major": 1, "access": "w"}]"#,
            &["-a", "+c 1:3 rm", "+b 8:* rwm"],
        );
        check(
            r#"[{"allow": true}, {"allow": false, "type": "b", "major": -1, "minor": -1, "access": "m"}]"#,
            &["+a", "-b *:* m"],
        );
        // Where none is for everything, what no rule allows is denied.
        check(r#"[{"allow": false, "type": "u", "major": 10, "access": "w"}]"#, &["-a"]);
        check(r#"[{"allow": true, "type": "c", "major": 10, "minor": 200}]"#, &["-a", "+c 10:200 rwm"]);
        check(r#"[{"allow": true, "type": "a", "major": -1, "minor": -1, "access": "mwr"}]"#, &["+a"]);
    }

    #[test]
    fn what_the_kernel_would_pass_over_is_refused() {
        let hole = r#"[{"allow": false}, {"allow": true, "type": "c", "major": 136, "access": "rw"},
            {"allow": false, "type": "c", "major": 136, "minor": 7, "access": "w"}]"#;
        assert!(lines(hole).unwrap_err().contains("cannot except \"c 136:7 w\" from \"c 136:* rw\""));
        for bad in [
            r#"[{"allow": true, "type": "p"}]"#,
            r#"[{"allow": true, "type": "c", "access": "rx"}]"#,
            r#"[{"allow": false}, {"allow": true, "major": 10, "minor": 200, "access": "rw"}]"#,
            r#"[{"allow": true, "type": "a", "major": 10}]"#,
            r#"[{"allow": true, "minor": 0}]"#,
            r#"[{"allow": false, "access": "w"}]"#,
            r#"[{"allow": true, "type": "c", "major": -2}]"#,
            r#"[{"allow": true, "type": "c", "major": 4294967296}]"#,
        ] {
            assert!(lines(bad).is_err(), "{bad}");
        }
    }
}
