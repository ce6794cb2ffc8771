//! Tokens into a tree.

use super::Fault;
use super::lexer::{Kind, Token, tokens};
use super::value::Value;

/// How deep blocks and parentheses may nest: more than anyone writes, less than the stack bears.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    /// `$a :=`, or `$i, $v :=` of a range.
    pub variables: Vec<String>,
    /// `=` in place of `:=`.
    pub is_assignment: bool,
    pub commands: Vec<Command>,
    pub offset: usize,
}

/// An operand and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub operands: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(crate) struct Operand {
    pub kind: OperandKind,
    /// `.a.b` after it.
    pub fields: Vec<String>,
    pub offset: usize,
    /// As written, for messages.
    pub text: String,
}

#[derive(Debug, Clone)]
pub(crate) enum OperandKind {
    Dot,
    Literal(Value),
    Variable(String),
    Function(String),
    Pipeline(Box<Pipeline>),
}

pub(crate) fn parse(source: &str) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        source,
        tokens: tokens(source)?,
        position: 0,
        depth: 0,
        range_depth: 0,
        variables: vec![String::new()],
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        Ended::InputOver => Ok(nodes),
        Ended::AtElse(offset) => Err(Fault::new(offset, "unexpected {{else}}")),
        Ended::AtEnd(offset) => Err(Fault::new(offset, "unexpected {{end}}")),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    position: usize,
    depth: usize,
    range_depth: usize,
    /// Names in scope, innermost last; the empty one is `$`.
    variables: Vec<String>,
}

/// What ended a list of nodes.
enum Ended {
    InputOver,
    AtElse(usize),
    AtEnd(usize),
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn next(&mut self) -> Result<Token, Fault> {
        let token = self.peek().cloned().ok_or_else(|| Fault::new(self.source.len(), "unexpected EOF"))?;
        self.position += 1;
        Ok(token)
    }

    fn nest(&mut self, offset: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Fault::new(offset, "it is nested too deeply")) } else { Ok(()) }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Ended), Fault> {
        let mut nodes = Vec::new();
        while let Some(token) = self.peek().cloned() {
            self.position += 1;
            if let Kind::Text(text) = token.kind {
                nodes.push(Node::Text(text));
                continue;
            }
            let keyword = match self.peek().map(|token| &token.kind) {
                Some(Kind::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "if" | "with" | "range" => {
                    self.position += 1;
                    nodes.push(self.block(&keyword, token.offset)?);
                }
                "else" => {
                    self.position += 1;
                    return Ok((nodes, Ended::AtElse(token.offset)));
                }
                "end" => {
                    self.position += 1;
                    self.close("end")?;
                    return Ok((nodes, Ended::AtEnd(token.offset)));
                }
                "break" | "continue" => {
                    self.position += 1;
                    if self.range_depth == 0 {
                        return Err(Fault::new(token.offset, format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                    }
                    self.close(&keyword)?;
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(Fault::new(token.offset, format!("{{{{{keyword}}}}} is not built yet")));
                }
                _ => {
                    let pipeline = self.pipeline("command", false)?;
                    self.close("command")?;
                    nodes.push(Node::Action(pipeline));
                }
            }
        }
        Ok((nodes, Ended::InputOver))
    }

    fn close(&mut self, context: &str) -> Result<(), Fault> {
        let token = self.next()?;
        match token.kind {
            Kind::Close => Ok(()),
            _ => Err(self.unexpected(&token, context)),
        }
    }

    fn unexpected(&self, token: &Token, context: &str) -> Fault {
        let end = self.tokens.get(self.position).map_or(self.source.len(), |next| next.offset);
        let text = self.source.get(token.offset..end).unwrap_or_default().trim();
        Fault::new(token.offset, format!("unexpected {text:?} in {context}"))
    }

    /// `if`, `with` or `range`, behind its keyword.
    fn block(&mut self, keyword: &str, offset: usize) -> Result<Node, Fault> {
        self.nest(offset)?;
        let scope = self.variables.len();
        let pipeline = self.pipeline(keyword, keyword == "range")?;
        self.close(keyword)?;
        self.range_depth += usize::from(keyword == "range");
        let (body, end) = self.nodes()?;
        self.range_depth -= usize::from(keyword == "range");
        let otherwise = match end {
            Ended::AtEnd(_) => Vec::new(),
            Ended::InputOver => return Err(Fault::new(self.source.len(), "unexpected EOF")),
            Ended::AtElse(else_offset) => self.otherwise(keyword, else_offset)?,
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    /// Behind `else`: `else if` and `else with` are blocks of their own that share the `end`.
    fn otherwise(&mut self, keyword: &str, offset: usize) -> Result<Vec<Node>, Fault> {
        if let Some(Kind::Word(word)) = self.peek().map(|token| &token.kind)
            && word == keyword
            && word != "range"
        {
            self.position += 1;
            return Ok(vec![self.block(keyword, offset)?]);
        }
        self.close("else")?;
        match self.nodes()? {
            (nodes, Ended::AtEnd(_)) => Ok(nodes),
            (_, Ended::AtElse(offset)) => Err(Fault::new(offset, "expected end; found {{else}}")),
            (_, Ended::InputOver) => Err(Fault::new(self.source.len(), "unexpected EOF")),
        }
    }

    fn pipeline(&mut self, context: &str, is_range: bool) -> Result<Pipeline, Fault> {
        let offset = self.peek().map_or(self.source.len(), |token| token.offset);
        let (variables, is_assignment) = self.declaration(is_range)?;
        let mut commands = Vec::new();
        loop {
            let operands = self.operands(context)?;
            if operands.is_empty() {
                let what = if commands.is_empty() { "missing value for" } else { "missing value after pipe in" };
                return Err(Fault::new(offset, format!("{what} {context}")));
            }
            commands.push(Command { operands });
            if self.peek().is_some_and(|token| token.kind == Kind::Pipe) {
                self.position += 1;
                continue;
            }
            break;
        }
        for command in &commands[1..] {
            if let OperandKind::Literal(_) | OperandKind::Dot = command.operands[0].kind
                && command.operands[0].fields.is_empty()
            {
                return Err(Fault::new(offset, "non executable command in pipeline"));
            }
        }
        // A variable is known only behind its own pipeline.
        if !is_assignment {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, is_assignment, commands, offset })
    }

    fn declaration(&mut self, is_range: bool) -> Result<(Vec<String>, bool), Fault> {
        let begin = self.position;
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = self.peek().map(|token| token.kind.clone()) {
            let offset = self.next()?.offset;
            names.push(name.clone());
            match self.peek().map(|token| &token.kind) {
                Some(Kind::Comma) if is_range && names.len() < 2 => self.position += 1,
                Some(kind @ (Kind::Declare | Kind::Assign)) => {
                    let is_assignment = *kind == Kind::Assign;
                    self.position += 1;
                    if is_assignment && let Some(unknown) = names.iter().find(|name| !self.variables.contains(name)) {
                        return Err(Fault::new(offset, format!("undefined variable \"${unknown}\"")));
                    }
                    return Ok((names, is_assignment));
                }
                _ => break,
            }
        }
        self.position = begin;
        Ok((Vec::new(), false))
    }

    fn operands(&mut self, context: &str) -> Result<Vec<Operand>, Fault> {
        let mut operands: Vec<Operand> = Vec::new();
        while let Some(token) = self.peek().cloned() {
            if matches!(token.kind, Kind::Close | Kind::Pipe | Kind::RightParenthesis) {
                break;
            }
            if !operands.is_empty() && !token.is_spaced && token.kind != Kind::LeftParenthesis {
                return Err(self.unexpected(&token, "operand"));
            }
            operands.push(self.operand(context)?);
        }
        Ok(operands)
    }

    fn operand(&mut self, context: &str) -> Result<Operand, Fault> {
        let token = self.next()?;
        let mut fields = Vec::new();
        let kind = match &token.kind {
            Kind::Dot => OperandKind::Dot,
            Kind::Field(name) => {
                fields.push(name.clone());
                OperandKind::Dot
            }
            Kind::Variable(name) if self.variables.contains(name) => OperandKind::Variable(name.clone()),
            Kind::Variable(name) => return Err(Fault::new(token.offset, format!("undefined variable \"${name}\""))),
            Kind::String(text) => OperandKind::Literal(Value::String(text.clone())),
            Kind::Integer(number) => OperandKind::Literal(Value::Integer(*number)),
            Kind::Float(number) => OperandKind::Literal(Value::Float(*number)),
            Kind::Word(word) => match word.as_str() {
                "true" => OperandKind::Literal(Value::Boolean(true)),
                "false" => OperandKind::Literal(Value::Boolean(false)),
                "nil" => OperandKind::Literal(Value::Null),
                name if super::functions::is_known(name) => OperandKind::Function(name.to_owned()),
                name => return Err(Fault::new(token.offset, format!("function {name:?} not defined"))),
            },
            Kind::LeftParenthesis => {
                self.nest(token.offset)?;
                let pipeline = self.pipeline("parenthesized pipeline", false)?;
                let close = self.next()?;
                if close.kind != Kind::RightParenthesis {
                    return Err(self.unexpected(&close, "parenthesized pipeline"));
                }
                self.depth -= 1;
                OperandKind::Pipeline(Box::new(pipeline))
            }
            _ => return Err(self.unexpected(&token, context)),
        };
        while let Some(Token { kind: Kind::Field(name), is_spaced: false, offset }) = self.peek().cloned() {
            if matches!(kind, OperandKind::Literal(_) | OperandKind::Function(_)) {
                return Err(Fault::new(offset, format!("unexpected . after term {:?}", self.text_from(token.offset))));
            }
            self.position += 1;
            fields.push(name);
        }
        let text = self.text_from(token.offset);
        Ok(Operand { kind, fields, offset: token.offset, text })
    }

    fn text_from(&self, offset: usize) -> String {
        let end = self.peek().map_or(self.source.len(), |token| token.offset);
        self.source.get(offset..end).unwrap_or_default().trim().to_owned()
    }
}
