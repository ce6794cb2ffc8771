//! The tree over data.

use super::Fault;
use super::fields;
use super::functions;
use super::parser::{Command, Node, Operand, OperandKind, Pipeline};
use super::value::{Empty, Value};

/// No rendering is longer: a guard against templates that only grow.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

pub(crate) fn render(nodes: &[Node], data: &Value) -> Result<String, Fault> {
    let mut evaluation = Evaluation { output: String::new(), variables: vec![(String::new(), data.clone())] };
    evaluation.nodes(nodes, data)?;
    Ok(evaluation.output)
}

struct Evaluation {
    output: String,
    /// Innermost last; the empty name is `$`.
    variables: Vec<(String, Value)>,
}

/// Whether a list of nodes ran to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

fn fault(operand: &Operand, why: impl std::fmt::Display) -> Fault {
    Fault::new(operand.offset, format!("executing \"\" at <{}>: {why}", operand.text))
}

impl Evaluation {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.output.push_str(text);
                    Flow::Next
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.output.push_str(&value.to_string());
                    }
                    Flow::Next
                }
                Node::If(pipeline, body, otherwise) => self.scoped(|this| {
                    let is_true = this.pipeline(pipeline, dot)?.is_true();
                    this.nodes(if is_true { body } else { otherwise }, dot)
                })?,
                Node::With(pipeline, body, otherwise) => self.scoped(|this| {
                    let value = this.pipeline(pipeline, dot)?;
                    if value.is_true() { this.nodes(body, &value) } else { this.nodes(otherwise, dot) }
                })?,
                Node::Range(pipeline, body, otherwise) => {
                    self.scoped(|this| this.range(pipeline, body, otherwise, dot))?
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if self.output.len() > MAX_OUTPUT_BYTES {
                return Err(Fault::new(0, "the output is too long"));
            }
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn scoped(&mut self, run: impl FnOnce(&mut Self) -> Result<Flow, Fault>) -> Result<Flow, Fault> {
        let scope = self.variables.len();
        let flow = run(self);
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, pipeline: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, Fault> {
        let index = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let entries: Vec<(Value, Value)> = match self.commands(pipeline, dot)? {
            Value::List(list) => list.into_iter().enumerate().map(|(number, value)| (index(number), value)).collect(),
            Value::Map(mut entries) => {
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                entries.into_iter().map(|(key, value)| (Value::String(key), value)).collect()
            }
            Value::Integer(count) => {
                (0..count.clamp(0, 1_000_000)).map(|n| (Value::Integer(n), Value::Integer(n))).collect()
            }
            Value::Null | Value::Empty(_) => Vec::new(),
            other => return Err(Fault::new(pipeline.offset, format!("range can't iterate over {other}"))),
        };
        if entries.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, value) in entries {
            let scope = self.variables.len();
            match pipeline.variables.as_slice() {
                [] => {}
                [element] => self.bind(element, value.clone(), pipeline.is_assignment),
                [position, element, ..] => {
                    self.bind(position, key, pipeline.is_assignment);
                    self.bind(element, value.clone(), pipeline.is_assignment);
                }
            }
            let flow = self.nodes(body, &value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, name: &str, value: Value, is_assignment: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| is_assignment && known == name) {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Fault> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.bind(name, value.clone(), pipeline.is_assignment);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Fault> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    /// `last` is what the command before it in the pipeline gave.
    fn command(&mut self, command: &Command, last: Option<Value>, dot: &Value) -> Result<Value, Fault> {
        let (first, arguments) = command.operands.split_first().expect("the parser lets no empty command through");
        let OperandKind::Function(name) = &first.kind else {
            return self.field_command(first, arguments, last, dot);
        };
        if name == "and" || name == "or" {
            return self.short_circuit(name == "and", first, arguments, last, dot);
        }
        let mut values = arguments.iter().map(|argument| self.operand(argument, dot)).collect::<Result<Vec<_>, _>>()?;
        values.extend(last);
        functions::call(name, &values).map_err(|why| fault(first, format!("error calling {name}: {why}")))
    }

    fn short_circuit(
        &mut self,
        is_and: bool,
        first: &Operand,
        arguments: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, Fault> {
        let mut value = None;
        for argument in arguments {
            let next = self.operand(argument, dot)?;
            if next.is_true() != is_and {
                return Ok(next);
            }
            value = Some(next);
        }
        last.or(value).ok_or_else(|| fault(first, "wrong number of args: want at least 1 got 0"))
    }

    /// A field may take arguments if it is one of a row's methods.
    fn field_command(
        &mut self,
        first: &Operand,
        arguments: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, Fault> {
        if arguments.is_empty() && last.is_none() {
            return self.operand(first, dot);
        }
        let Some((method, fields)) = first.fields.split_last() else {
            return Err(fault(first, format!("can't give argument to non-function {}", first.text)));
        };
        let holder = self.walk(first, fields, dot)?;
        let mut values = arguments.iter().map(|argument| self.operand(argument, dot)).collect::<Result<Vec<_>, _>>()?;
        values.extend(last);
        match (&holder, method.as_str(), values.as_slice()) {
            (Value::Row(row), "Label", [Value::String(name)]) if row.labels.is_some() => {
                let labels = row.labels.iter().flatten();
                let found = labels.into_iter().find(|(label, _)| label == name).map(|(_, value)| value.clone());
                Ok(Value::String(found.unwrap_or_default()))
            }
            (Value::Row(_), "Label", _) => Err(fault(first, "wrong number of args for Label: want one text")),
            _ => Err(fault(first, format!("{method} is not a method but has arguments"))),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Fault> {
        self.walk(operand, &operand.fields, dot)
    }

    fn walk(&mut self, operand: &Operand, fields: &[String], dot: &Value) -> Result<Value, Fault> {
        let begin = match &operand.kind {
            OperandKind::Dot => dot.clone(),
            OperandKind::Literal(value) => value.clone(),
            OperandKind::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                known.map(|(_, value)| value.clone()).expect("the parser lets no unknown variable through")
            }
            OperandKind::Function(name) => {
                functions::call(name, &[]).map_err(|why| fault(operand, format!("error calling {name}: {why}")))?
            }
            OperandKind::Pipeline(pipeline) => self.scoped_value(pipeline, dot)?,
        };
        fields.iter().try_fold(begin, |value, field| field_of(operand, &value, field))
    }

    fn scoped_value(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Fault> {
        self.pipeline(pipeline, dot)
    }
}

fn field_of(operand: &Operand, value: &Value, name: &str) -> Result<Value, Fault> {
    match value {
        Value::Map(entries) => match fields::find(entries, name) {
            Some(found) => Ok(found),
            None if is_object_of_the_api(entries) => Err(fault(operand, format!("map has no entry for key {name:?}"))),
            None => Ok(Value::Null),
        },
        Value::Empty(Empty::Map) => Ok(Value::Null),
        Value::Row(row) => match row.get(name) {
            Some(text) => Ok(Value::String(text.to_owned())),
            None => Err(fault(operand, format!("can't evaluate field {name}: there is no such column"))),
        },
        Value::Null | Value::Empty(Empty::Pointer) => {
            Err(fault(operand, format!("nil pointer evaluating interface {{}}.{name}")))
        }
        other => Err(fault(operand, format!("can't evaluate field {name} in type {}", other.kind()))),
    }
}

/// The API's objects have names in capitals, and asking for one that is not there is a slip of the pen. Maps from
/// users' words (labels, options, ports) are not all so, and there it prints `<no value>`.
fn is_object_of_the_api(entries: &[(String, Value)]) -> bool {
    !entries.is_empty() && entries.iter().all(|(key, _)| key.starts_with(|c: char| c.is_ascii_uppercase()))
}
