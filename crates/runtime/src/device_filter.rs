//! Rules for devices: as version 1's controller takes them ([`rules`]), and where that is not, an eBPF program of type
//! BPF_PROG_TYPE_CGROUP_DEVICE (Documentation/admin-guide/cgroup-v2.rst, "Device controller"; the instruction set:
//! Documentation/bpf/standardization).

mod rules;

use oci_spec::runtime::LinuxDeviceCgroup;

pub(crate) use self::rules::lines_of_version_1;
use self::rules::{Kind, Rule, Target};
use crate::error::RuntimeError;

// Offsets in struct bpf_cgroup_dev_ctx (linux/bpf.h); access in the high, kind in the low half of the first word.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
// BPF_DEVCG_*.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MAKE | READ | WRITE;

// Registers: the context, and what it says.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND_REGISTER: u8 = 2;
const MAJOR_REGISTER: u8 = 3;
const MINOR_REGISTER: u8 = 4;
/// For what is asked for, outside of functions.
const ACCESS_REGISTER: u8 = 2;
/// The context too, where a call leaves it as it is.
const KEPT_CONTEXT: u8 = 6;

// Opcodes.
const LOAD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x54;
const JUMP_IF_DIFFERENT: u8 = 0x56;
const JUMP_IF_SAME: u8 = 0x16;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// In the place of a source, it makes a call one of a function of the program's own.
const OWN_FUNCTION: u8 = 1;

/// One instruction: opcode, registers, offset, immediate.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

/// `return allow`.
fn answer(allow: bool) -> [u64; 2] {
    [instruction(SET, RESULT, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// The program: of each kind of access that is asked for, the last rule that names it and matches the device decides,
/// and without any, nothing is allowed.
///
/// Accesses that the rules never tell apart are decided together, by a function that returns at the first rule that
/// matches: the kernel's verifier, which follows every path, is then done after as many steps as there are rules. (With
/// accesses decided within one pass it would carry what it knows from rule to rule, for each of them anew.)
pub(crate) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u64>, RuntimeError> {
    // All of them are looked at, also those that an `a` after them has made void: a wrong one is refused.
    let rules: Vec<Rule> = rules.iter().map(Rule::new).collect::<Result<_, _>>()?;
    let groups = groups(&rules);
    if let [all] = groups[..] {
        return Ok(decide(&rules, all));
    }
    let mut program = vec![instruction(COPY, KEPT_CONTEXT, CONTEXT, 0, 0)];
    let functions: Vec<Vec<u64>> = groups.iter().map(|group| decide(&rules, *group)).collect();
    // Seven instructions for each group, and the answer.
    let mut function_at = program.len() + groups.len() * 7 + 2;
    for (group, function) in groups.iter().zip(&functions) {
        program.extend([
            instruction(LOAD, ACCESS_REGISTER, KEPT_CONTEXT, ACCESS_TYPE, 0),
            instruction(AND, ACCESS_REGISTER, 0, 0, group << 16),
            instruction(JUMP_IF_SAME, ACCESS_REGISTER, 0, 4, 0),
            instruction(COPY, CONTEXT, KEPT_CONTEXT, 0, 0),
        ]);
        let distance = (function_at - program.len() - 1) as i32;
        program.extend([
            instruction(CALL, 0, OWN_FUNCTION, 0, distance),
            instruction(JUMP_IF_DIFFERENT, RESULT, 0, 1, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
        function_at += function.len();
    }
    program.extend(answer(true));
    program.extend(functions.into_iter().flatten());
    Ok(program)
}

/// Accesses that are in the same rules.
fn groups(rules: &[Rule]) -> Vec<i32> {
    let mut groups: Vec<i32> = Vec::new();
    for access in [READ, WRITE, MAKE] {
        let is_alike =
            |group: &&mut i32| rules.iter().all(|rule| (rule.access & **group == 0) == (rule.access & access == 0));
        match groups.iter_mut().find(is_alike) {
            Some(group) => *group |= access,
            None => groups.push(access),
        }
    }
    groups
}

/// Decides about these accesses: the last rule that matches the device.
fn decide(rules: &[Rule], accesses: i32) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD, KIND_REGISTER, CONTEXT, ACCESS_TYPE, 0),
        instruction(AND, KIND_REGISTER, 0, 0, 0xffff),
        instruction(LOAD, MAJOR_REGISTER, CONTEXT, MAJOR, 0),
        instruction(LOAD, MINOR_REGISTER, CONTEXT, MINOR, 0),
    ];
    for rule in rules.iter().rev().filter(|rule| rule.access & accesses != 0) {
        // Where the rule does not apply, all that is left of it is jumped over.
        let conditions = conditions(rule);
        let length = conditions.len() + 2;
        for (at, (register, value)) in conditions.iter().enumerate() {
            program.push(instruction(JUMP_IF_DIFFERENT, *register, 0, (length - at - 1) as i16, *value));
        }
        program.extend(answer(rule.allow));
        if conditions.is_empty() {
            return program;
        }
    }
    program.extend(answer(false));
    program
}

/// Registers, and what they hold where the rule matches.
fn conditions(rule: &Rule) -> Vec<(u8, i32)> {
    let Target::Devices { kind, major, minor } = rule.target else { return Vec::new() };
    let kind = match kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    };
    let numbers = [(MAJOR_REGISTER, major), (MINOR_REGISTER, minor)];
    let numbers = numbers.into_iter().filter_map(|(register, number)| Some((register, number? as i32)));
    std::iter::once((KIND_REGISTER, kind)).chain(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [(access << 16) | kind, major, minor];
        let (mut registers, mut at, mut callers) = ([0i32; 8], 0usize, Vec::new());
        loop {
            let word = program[at];
            at += 1;
            let (destination, source) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, value) = ((word >> 16) as i16, (word >> 32) as i32);
            let holds = match word as u8 {
                LOAD => {
                    registers[destination] = context[offset as usize / 4];
                    false
                }
                AND => {
                    registers[destination] &= value;
                    false
                }
                COPY => {
                    registers[destination] = registers[source];
                    false
                }
                SET => {
                    registers[destination] = value;
                    false
                }
                CALL => {
                    callers.push(at);
                    at += value as usize;
                    false
                }
                EXIT => match callers.pop() {
                    Some(caller) => {
                        at = caller;
                        false
                    }
                    None => return registers[0] != 0,
                },
                JUMP_IF_DIFFERENT => registers[destination] != value,
                JUMP_IF_SAME => registers[destination] == value,
                other => panic!("instruction {other:#x}"),
            };
            if holds {
                at += offset as usize;
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "major": 136, "access": "rw"},
                {"allow": false, "type": "c", "major": 136, "minor": 7, "access": "w"}]"#,
        )
        .unwrap();
        let program = compile(&rules).unwrap();
        let ask = |kind, access, major, minor| run(&program, kind, access, major, minor);
        assert!(ask(CHARACTER, READ | WRITE, 1, 3));
        assert!(ask(CHARACTER, MAKE, 10, 1) && !ask(CHARACTER, READ, 10, 1));
        assert!(!ask(BLOCK, READ, 8, 0) && !ask(BLOCK, MAKE, 8, 0));
        assert!(ask(CHARACTER, READ | WRITE, 136, 5) && !ask(CHARACTER, READ | WRITE, 10, 5));
        assert!(!ask(CHARACTER, READ | WRITE, 136, 7) && ask(CHARACTER, READ, 136, 7));
        assert!(!run(&compile(&[]).unwrap(), CHARACTER, READ, 1, 3));
    }

    #[test]
    fn accesses_are_decided_one_by_one() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "access": "r"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "w"},
                {"allow": true, "type": "b"}, {"allow": false, "type": "b", "minor": 1, "access": "rw"}]"#,
        )
        .unwrap();
        let program = compile(&rules).unwrap();
        let ask = |kind, access, major, minor| run(&program, kind, access, major, minor);
        // Who may read and may write may do both at once.
        assert!(ask(CHARACTER, READ | WRITE, 1, 3) && !ask(CHARACTER, READ | WRITE | MAKE, 1, 3));
        assert!(ask(CHARACTER, READ, 1, 4) && !ask(CHARACTER, READ | WRITE, 1, 4));
        assert!(ask(BLOCK, ALL, 8, 0) && !ask(BLOCK, ALL, 8, 1) && ask(BLOCK, MAKE, 8, 1));
        let all: Vec<LinuxDeviceCgroup> = serde_json::from_str(r#"[{"allow": true}]"#).unwrap();
        assert!(run(&compile(&all).unwrap(), BLOCK, ALL, 8, 0), "`a` is all of everything");
        for less in [r#"[{"allow": true, "access": "r"}]"#, r#"[{"allow": true, "major": 10, "minor": 200}]"#] {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(less).unwrap();
            let error = compile(&rules).unwrap_err().to_string();
            assert!(error.contains("a rule without a type, or of type a, is for all access"), "{error}");
        }
    }

    /// A cgroup of version 2's, where this machine has any.
    fn cgroup(name: &str) -> Option<std::path::PathBuf> {
        let unified = crate::CgroupLayout::of_host().unwrap().unified()?;
        let directory = unified.mount_point().join(format!("dozen-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Some(directory)
    }

    #[test]
    fn the_kernel_takes_thousands_of_rules_for_some_accesses() {
        let Some(directory) = cgroup("many-devices") else { return };
        let rules: Vec<LinuxDeviceCgroup> = (0..8000)
            .map(|minor| serde_json::json!({"allow": minor % 3 != 0, "type": "c", "major": 240, "minor": minor, "access": "r"}))
            .map(|rule| serde_json::from_value(rule).unwrap())
            .collect();
        let cgroup = std::fs::File::open(&directory).unwrap();
        let attached = crate::sys::attach_device_program(&cgroup, &compile(&rules).unwrap());
        std::fs::remove_dir(&directory).unwrap();
        attached.unwrap();
    }

    /// On the real kernel: its verifier takes the program, and it does what it says.
    #[test]
    fn the_kernel_takes_it() {
        let Some(directory) = cgroup("devices") else { return };
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]"#,
        )
        .unwrap();
        let cgroup = std::fs::File::open(&directory).unwrap();
        let attached = crate::sys::attach_device_program(&cgroup, &compile(&rules).unwrap());
        // Our own shell, moved there, may read zero, write null, and neither write zero nor read random.
        let script = format!(
            "echo $$ > {}/cgroup.procs; true < /dev/zero && true > /dev/null; echo $?; \
             (true > /dev/zero) 2>/dev/null; echo $?; (true < /dev/random) 2>/dev/null; echo $?",
            directory.display()
        );
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir(&directory).unwrap();
        attached.unwrap();
        let codes: Vec<bool> = String::from_utf8_lossy(&output.stdout).lines().map(|code| code == "0").collect();
        assert_eq!(codes, [true, false, false], "{output:?}");
    }
}
