//! From verdicts to instructions.

use super::{ALLOW, Condition, ConditionalRule, FOREIGN_ARCHITECTURE, Machine, Operator, Verdict};
use crate::sys::Instruction;

// linux/bpf_common.h: class, size or operation, mode or source.
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;

// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What x32 adds to the numbers of its calls (__X32_SYSCALL_BIT).
const X32_BIT: u32 = 0x4000_0000;

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, value }
}

/// A comparison whose jumps count instructions to skip.
fn branch(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

/// The whole program: architecture, then number, then arguments.
pub(super) fn assemble(blocks: &[(Machine, Vec<(u32, Verdict)>)]) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    let find = |wanted| blocks.iter().find(|(machine, _)| *machine == wanted).map(|(_, runs)| runs);
    for machine in [Machine::X86_64, Machine::Aarch64, Machine::X86, Machine::Arm] {
        let x32 = (machine == Machine::X86_64).then(|| find(Machine::X32)).flatten();
        let Some(runs) = find(machine) else { continue };
        let mut block = vec![plain(LOAD, NUMBER)];
        if machine == Machine::X86_64 {
            let with_bit = match x32 {
                Some(runs) => search(&runs.iter().map(|(start, v)| (start | X32_BIT, v)).collect::<Vec<_>>()),
                None => vec![plain(RETURN, FOREIGN_ARCHITECTURE)],
            };
            choose(&mut block, IF_AT_LEAST, X32_BIT, search(&refer(runs)), with_bit);
        } else {
            block.extend(search(&refer(runs)));
        }
        // Equal: into the block. Else over it, which may be far.
        program.push(branch(IF_EQUAL, machine.audit_number(), 1, 0));
        program.push(plain(JUMP, block.len() as u32));
        program.extend(block);
    }
    program.push(plain(RETURN, FOREIGN_ARCHITECTURE));
    program
}

/// Before another program: what these calls are let through by, each with the lower half of an argument, if that matters.
pub(super) fn assemble_besides(
    machine: Machine,
    calls: &[(u32, Option<(u32, u32)>)],
    rest: &[Instruction],
) -> Vec<Instruction> {
    let mut block = vec![plain(LOAD, NUMBER)];
    for (number, argument) in calls {
        let (skipped, condition) = match argument {
            None => (1, Vec::new()),
            Some((argument, value)) => (4, vec![plain(LOAD, ARGUMENTS + 8 * argument), branch(IF_EQUAL, *value, 0, 1)]),
        };
        let again = condition.first().map(|_| plain(LOAD, NUMBER));
        block.push(branch(IF_EQUAL, *number, 0, skipped));
        block.extend(condition);
        block.push(plain(RETURN, ALLOW));
        block.extend(again);
    }
    let mut program = vec![plain(LOAD, ARCHITECTURE), branch(IF_EQUAL, machine.audit_number(), 1, 0)];
    program.push(plain(JUMP, block.len() as u32));
    program.extend(block);
    program.extend_from_slice(rest);
    program
}

fn refer(runs: &[(u32, Verdict)]) -> Vec<(u32, &Verdict)> {
    runs.iter().map(|(start, verdict)| (*start, verdict)).collect()
}

/// `if comparison { yes } else { no }`, both of which return.
fn choose(program: &mut Vec<Instruction>, code: u16, value: u32, no: Vec<Instruction>, yes: Vec<Instruction>) {
    match u8::try_from(no.len()) {
        Ok(far) => program.push(branch(code, value, far, 0)),
        Err(_) => {
            program.push(branch(code, value, 0, 1));
            program.push(plain(JUMP, no.len() as u32));
        }
    }
    program.extend(no);
    program.extend(yes);
}

/// Bisects the runs by the number, which is loaded.
fn search(runs: &[(u32, &Verdict)]) -> Vec<Instruction> {
    match runs {
        [] => Vec::new(),
        [(_, verdict)] => decide(verdict),
        _ => {
            let (below, above) = runs.split_at(runs.len() / 2);
            let mut program = Vec::new();
            choose(&mut program, IF_AT_LEAST, above[0].0, search(below), search(above));
            program
        }
    }
}

/// The end of every path: tries the conditional rules in turn, then returns the rest.
fn decide(verdict: &Verdict) -> Vec<Instruction> {
    let mut program = Vec::new();
    let mut rules = verdict.conditional.as_slice();
    while let [(conditions, action), rest @ ..] = rules {
        let alike = values_of_one_argument(rules);
        if alike.len() > 1 {
            program.extend(any_of(conditions[0], &alike, *action));
            rules = &rules[alike.len()..];
            continue;
        }
        rules = rest;
        // Each condition falls through if it holds, and else leaves the rule: its jump is known once the rule's
        // length is.
        let mut rule: Vec<(Instruction, Option<Leave>)> = Vec::new();
        for condition in conditions {
            rule.extend(compare(condition));
        }
        rule.push((plain(RETURN, *action), None));
        let length = rule.len();
        for (at, (mut instruction, leave)) in rule.into_iter().enumerate() {
            // At most six conditions of seven instructions: fits in a byte.
            let out = (length - at - 1) as u8;
            match leave {
                Some(Leave::IfTrue) => instruction.if_true = out,
                Some(Leave::IfFalse) => instruction.if_false = out,
                None => {}
            }
            program.push(instruction);
        }
    }
    program.push(plain(RETURN, verdict.otherwise));
    program
}

/// The low halves of the values that the first rules compare one argument with, all to one end: families of sockets,
/// say. As many as one jump can skip.
fn values_of_one_argument(rules: &[ConditionalRule]) -> Vec<u32> {
    let [(first, action), ..] = rules else { return Vec::new() };
    let alike = |(conditions, other): &&ConditionalRule| match (conditions.as_slice(), first.as_slice()) {
        ([one], [first]) => {
            other == action
                && (one.operator, first.operator) == (Operator::ScmpCmpEq, Operator::ScmpCmpEq)
                && (one.argument, one.value >> 32) == (first.argument, first.value >> 32)
        }
        _ => false,
    };
    rules.iter().take(200).take_while(alike).map(|(conditions, _)| conditions[0].value as u32).collect()
}

/// `if argument is one of these { return action }`, with one load of each half.
fn any_of(condition: Condition, values: &[u32], action: u32) -> Vec<Instruction> {
    let low = ARGUMENTS + 8 * condition.argument;
    let count = values.len() as u8;
    let mut code =
        vec![plain(LOAD, low + 4), branch(IF_EQUAL, (condition.value >> 32) as u32, 0, count + 3), plain(LOAD, low)];
    code.extend((0..count).zip(values).map(|(at, value)| branch(IF_EQUAL, *value, count - at, 0)));
    code.push(plain(JUMP, 1));
    code.push(plain(RETURN, action));
    code
}

/// Which branch of a comparison leaves the rule.
#[derive(Clone, Copy)]
enum Leave {
    IfTrue,
    IfFalse,
}

/// 64 bits in two halves, little-endian. Falls through if the condition holds.
fn compare(condition: &Condition) -> Vec<(Instruction, Option<Leave>)> {
    use Leave::{IfFalse, IfTrue};
    let low = ARGUMENTS + 8 * condition.argument;
    let high = low + 4;
    let (wanted_high, wanted_low) = ((condition.value >> 32) as u32, condition.value as u32);
    let load = |offset| (plain(LOAD, offset), None);
    // `skip` instructions on to the end of this condition, where it holds.
    let mut code = vec![load(high)];
    match condition.operator {
        Operator::ScmpCmpEq => {
            code.push((branch(IF_EQUAL, wanted_high, 0, 0), Some(IfFalse)));
            code.push(load(low));
            code.push((branch(IF_EQUAL, wanted_low, 0, 0), Some(IfFalse)));
        }
        Operator::ScmpCmpNe => {
            code.push((branch(IF_EQUAL, wanted_high, 0, 2), None));
            code.push(load(low));
            code.push((branch(IF_EQUAL, wanted_low, 0, 0), Some(IfTrue)));
        }
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
            let low_code = if condition.operator == Operator::ScmpCmpGt { IF_GREATER } else { IF_AT_LEAST };
            code.push((branch(IF_GREATER, wanted_high, 3, 0), None));
            code.push((branch(IF_EQUAL, wanted_high, 0, 0), Some(IfFalse)));
            code.push(load(low));
            code.push((branch(low_code, wanted_low, 0, 0), Some(IfFalse)));
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let low_code = if condition.operator == Operator::ScmpCmpLt { IF_AT_LEAST } else { IF_GREATER };
            code.push((branch(IF_GREATER, wanted_high, 0, 0), Some(IfTrue)));
            code.push((branch(IF_EQUAL, wanted_high, 0, 2), None));
            code.push(load(low));
            code.push((branch(low_code, wanted_low, 0, 0), Some(IfTrue)));
        }
        Operator::ScmpCmpMaskedEq => {
            code.push((plain(AND, wanted_high), None));
            code.push((branch(IF_EQUAL, (condition.masked >> 32) as u32, 0, 0), Some(IfFalse)));
            code.push(load(low));
            code.push((plain(AND, wanted_low), None));
            code.push((branch(IF_EQUAL, condition.masked as u32, 0, 0), Some(IfFalse)));
        }
    }
    code
}
