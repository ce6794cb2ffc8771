//! Rules about how a file is written, whatever it builds.

use std::collections::BTreeSet;

use super::{Findings, Rule, written};
use crate::instruction::{Arg, Dockerfile, From, Instruction, Located, Step};
use crate::span::Span;
use crate::text::Word;

pub(super) fn look(file: &Dockerfile, findings: &mut Findings<'_>) {
    consistent_instruction_casing(file, findings);
    no_empty_continuation(file, findings);
    duplicate_stage_name(file, findings);
    for arg in &file.global {
        description_of_arg(&arg.value, arg.span, &arg.comments, findings);
    }
    for stage in file.stages.iter() {
        stage_name_casing(&stage.from, findings);
        from_as_casing(&stage.from, findings);
        reserved_stage_name(&stage.from, findings);
        description_of_stage(&stage.from, findings);
        for located in &stage.instructions {
            match &located.value {
                Instruction::Maintainer(_) => {
                    let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
                    findings.add(Rule::MaintainerDeprecated, located.span, detail);
                }
                Instruction::Step(Step::Arg(arg)) => {
                    description_of_arg(arg, located.span, &located.comments, findings);
                }
                _ => {}
            }
        }
    }
}

fn stage_name_casing(from: &Located<From>, findings: &mut Findings<'_>) {
    let Some(alias) = &from.value.alias else { return };
    let name = &alias.name.text;
    if *name != name.to_ascii_lowercase() {
        findings.add(Rule::StageNameCasing, from.span, format!("Stage name '{name}' should be lowercase"));
    }
}

/// Only where FROM itself is written in one way: if not, that is another rule's business.
fn from_as_casing(from: &Located<From>, findings: &mut Findings<'_>) {
    let Some(alias) = &from.value.alias else { return };
    let (keyword, own) = (&alias.keyword.text, &from.keyword.text);
    if casing(own).is_some() && casing(own) != casing(keyword) {
        let detail = format!("'{keyword}' and '{own}' keywords' casing do not match");
        findings.add(Rule::FromAsCasing, from.span, detail);
    }
}

fn reserved_stage_name(from: &Located<From>, findings: &mut Findings<'_>) {
    let name = from.value.alias.as_ref().map(|alias| alias.name.text.to_ascii_lowercase());
    if let Some(name @ ("scratch" | "context")) = name.as_deref() {
        let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
        findings.add(Rule::ReservedStageName, from.span, detail);
    }
}

fn duplicate_stage_name(file: &Dockerfile, findings: &mut Findings<'_>) {
    let mut seen = BTreeSet::new();
    for from in file.stages.iter().map(|stage| &stage.from) {
        let Some(name) = from.value.alias.as_ref().map(|alias| alias.name.text.to_ascii_lowercase()) else { continue };
        let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
        if !seen.insert(name) {
            findings.add(Rule::DuplicateStageName, from.span, detail);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

/// `None`: some of each.
fn casing(keyword: &str) -> Option<Casing> {
    match (keyword == keyword.to_ascii_lowercase(), keyword == keyword.to_ascii_uppercase()) {
        (true, _) => Some(Casing::Lower),
        (_, true) => Some(Casing::Upper),
        _ => None,
    }
}

/// What most do is right; half and half, capitals are.
fn consistent_instruction_casing(file: &Dockerfile, findings: &mut Findings<'_>) {
    let all = written(file);
    let count = |wanted| all.iter().filter(|it| casing(it.keyword) == Some(wanted)).count();
    let (right, word) = match count(Casing::Lower) > count(Casing::Upper) {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    for it in all.iter().filter(|it| casing(it.keyword) != Some(right)) {
        let detail = format!("Command '{}' should match the case of the command majority ({word})", it.keyword);
        findings.add(Rule::ConsistentInstructionCasing, it.span, detail);
    }
}

/// Told at the instruction's last line, as BuildKit does.
fn no_empty_continuation(file: &Dockerfile, findings: &mut Findings<'_>) {
    for it in written(file).iter().filter(|it| it.has_empty_continuation) {
        let last = Span { start: it.line_end, end: it.line_end };
        findings.add(Rule::NoEmptyContinuation, last, "Empty continuation line".to_owned());
    }
}

fn description_of_arg(arg: &Arg, span: Span, comments: &[Word], findings: &mut Findings<'_>) {
    let names: Vec<&str> = arg.declarations.iter().map(|declaration| declaration.name.text.as_str()).collect();
    description("ARG", &names, span, comments, findings);
}

fn description_of_stage(from: &Located<From>, findings: &mut Findings<'_>) {
    if let Some(alias) = &from.value.alias {
        description("FROM", &[&alias.name.text.to_ascii_lowercase()], from.span, &from.comments, findings);
    }
}

/// The last line of the comment begins with one of the names.
fn description(keyword: &str, names: &[&str], span: Span, comments: &[Word], findings: &mut Findings<'_>) {
    let Some(comment) = comments.last() else { return };
    if names.contains(&comment.text.split(' ').next().unwrap_or_default()) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    findings.add(Rule::InvalidDefinitionDescription, span, detail);
}
