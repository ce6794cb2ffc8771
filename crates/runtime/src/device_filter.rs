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

// Registers: the context, then what it says. What is asked for loses what a rule has allowed already.
const CONTEXT: u8 = 1;
const KIND_REGISTER: u8 = 2;
const ACCESS_REGISTER: u8 = 3;
const MAJOR_REGISTER: u8 = 4;
const MINOR_REGISTER: u8 = 5;
const RESULT: u8 = 0;

/// One instruction: opcode, registers, offset, immediate.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

/// `register = *(u32 *)(context + offset)`.
fn load(register: u8, offset: i16) -> u64 {
    instruction(0x61, register, CONTEXT, offset, 0)
}

/// `return allow`.
fn answer(allow: bool) -> [u64; 2] {
    [instruction(0xb7, RESULT, 0, 0, i32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

/// The program: of each kind of access that is asked for, the last rule that names it and matches the device decides,
/// and without any, nothing is allowed.
pub(crate) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u64>, RuntimeError> {
    let mut program = vec![
        load(KIND_REGISTER, ACCESS_TYPE),
        load(ACCESS_REGISTER, ACCESS_TYPE),
        instruction(AND, KIND_REGISTER, 0, 0, 0xffff),
        instruction(0x74, ACCESS_REGISTER, 0, 0, 16),
        load(MAJOR_REGISTER, MAJOR),
        load(MINOR_REGISTER, MINOR),
    ];
    // All of them are looked at, also those that an `a` after them has made void: a wrong one is refused.
    let rules: Vec<Rule> = rules.iter().map(Rule::new).collect::<Result<_, _>>()?;
    for rule in rules.iter().rev() {
        // Steps run in order; a jump is taken where the rule does not apply, over all that is left of it.
        let steps = steps(rule);
        let length = steps.len() + 2;
        for (at, (code, register, value)) in steps.iter().copied().enumerate() {
            let over = if is_jump(code) { (length - at - 1) as i16 } else { 0 };
            program.push(instruction(code, register, if code == COPY { ACCESS_REGISTER } else { 0 }, over, value));
        }
        program.extend(answer(rule.allow));
        if steps.is_empty() {
            return Ok(program);
        }
    }
    program.extend(answer(false));
    Ok(program)
}

const COPY: u8 = 0xbc;
const JUMP_IF_DIFFERENT: u8 = 0x56;
const JUMP_IF_SAME: u8 = 0x16;
const AND: u8 = 0x54;

fn is_jump(code: u8) -> bool {
    matches!(code, JUMP_IF_DIFFERENT | JUMP_IF_SAME)
}

/// Opcode, register, value.
fn steps(rule: &Rule) -> Vec<(u8, u8, i32)> {
    let Target::Devices { kind, major, minor } = rule.target else { return Vec::new() };
    let kind = match kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    };
    let mut steps = vec![(JUMP_IF_DIFFERENT, KIND_REGISTER, kind)];
    for (number, register) in [(major, MAJOR_REGISTER), (minor, MINOR_REGISTER)] {
        if let Some(number) = number {
            steps.push((JUMP_IF_DIFFERENT, register, number as i32));
        }
    }
    if rule.access != ALL {
        if rule.allow {
            // What is left must be allowed by earlier rules.
            steps.push((AND, ACCESS_REGISTER, ALL & !rule.access));
            steps.push((JUMP_IF_DIFFERENT, ACCESS_REGISTER, 0));
        } else {
            // A refusal catches any of it.
            steps.extend([(COPY, RESULT, 0), (AND, RESULT, rule.access), (JUMP_IF_SAME, RESULT, 0)]);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [(access << 16) | kind, major, minor];
        let (mut registers, mut at) = ([0i32; 8], 0usize);
        loop {
            let word = program[at];
            at += 1;
            let (destination, source) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, value) = ((word >> 16) as i16, (word >> 32) as i32);
            let holds = match word as u8 {
                0x61 => {
                    registers[destination] = context[offset as usize / 4];
                    false
                }
                0x54 => {
                    registers[destination] &= value;
                    false
                }
                0x74 => {
                    registers[destination] = (registers[destination] as u32 >> value) as i32;
                    false
                }
                0xbc => {
                    registers[destination] = registers[source];
                    false
                }
                0xb7 => {
                    registers[destination] = value;
                    false
                }
                0x95 => return registers[0] != 0,
                0x56 => registers[destination] != value,
                0x16 => registers[destination] == value,
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
        let all: Vec<LinuxDeviceCgroup> = serde_json::from_str(r#"[{"allow": true, "access": "r"}]"#).unwrap();
        assert!(run(&compile(&all).unwrap(), BLOCK, ALL, 8, 0), "`a` is all of everything");
    }

    /// On the real kernel: its verifier takes the program, and it does what it says.
    #[test]
    fn the_kernel_takes_it() {
        let layout = crate::CgroupLayout::of_host().unwrap();
        let Some(unified) = layout.unified() else { return };
        let directory = unified.mount_point().join(format!("dozen-test-devices-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
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
