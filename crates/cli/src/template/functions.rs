//! The functions: Go's own, and Docker's.

use std::cmp::Ordering;

use super::value::{Empty, Value};

const NAMES: [&str; 23] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "slice", "len", "print", "printf", "println",
    "json", "join", "split", "lower", "upper", "title", "pad", "truncate",
];

/// The longest padding and the widest format: more is a mistake, not a layout.
const MAX_WIDTH: usize = 4096;

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(crate) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |index: usize| match arguments.get(index) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!("wrong type for value; expected string; got {}", other.kind())),
        None => Err(format!("wrong number of args: got {}", arguments.len())),
    };
    let number = |index: usize| match arguments.get(index) {
        Some(Value::Integer(number)) => Ok(usize::try_from(*number).unwrap_or(0)),
        Some(other) => Err(format!("wrong type for value; expected int; got {}", other.kind())),
        None => Err(format!("wrong number of args: got {}", arguments.len())),
    };
    let count = |wanted: usize| {
        if arguments.len() == wanted {
            Ok(())
        } else {
            Err(format!("wrong number of args for {name}: want {wanted} got {}", arguments.len()))
        }
    };
    match name {
        "not" => count(1).map(|()| Value::Boolean(!arguments[0].is_true())),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "len" => count(1).and_then(|()| length(&arguments[0])),
        "print" => Ok(Value::String(print(arguments))),
        "println" => Ok(Value::String(arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n")),
        "printf" => match arguments.split_first() {
            Some((Value::String(format), rest)) => printf(format, rest).map(Value::String),
            _ => Err("the first argument is the format".to_owned()),
        },
        "json" => count(1).map(|()| Value::String(arguments[0].to_json())),
        "join" => {
            count(2)?;
            let list = match &arguments[0] {
                Value::List(list) => list.as_slice(),
                Value::Null | Value::Empty(Empty::List) => &[],
                other => return Err(format!("wrong type for value; expected list; got {}", other.kind())),
            };
            let parts: Vec<String> = list.iter().map(ToString::to_string).collect();
            Ok(Value::String(parts.join(text(1)?)))
        }
        "split" => {
            count(2)?;
            let (whole, separator) = (text(0)?, text(1)?);
            let parts: Vec<Value> = if separator.is_empty() {
                whole.chars().map(|c| Value::String(c.to_string())).collect()
            } else {
                whole.split(separator).map(|part| Value::String(part.to_owned())).collect()
            };
            Ok(Value::List(parts))
        }
        "lower" => count(1).and_then(|()| Ok(Value::String(text(0)?.to_lowercase()))),
        "upper" => count(1).and_then(|()| Ok(Value::String(text(0)?.to_uppercase()))),
        "title" => count(1).and_then(|()| Ok(Value::String(title(text(0)?)))),
        "pad" => {
            count(3)?;
            let spaces = |count: usize| " ".repeat(count.min(MAX_WIDTH));
            match text(0)? {
                "" => Ok(Value::String(String::new())),
                source => Ok(Value::String(spaces(number(1)?) + source + &spaces(number(2)?))),
            }
        }
        "truncate" => count(2).and_then(|()| Ok(Value::String(text(0)?.chars().take(number(1)?).collect()))),
        _ => Err("function not defined".to_owned()),
    }
}

fn title(text: &str) -> String {
    let mut is_start = true;
    let mut titled = String::new();
    for character in text.chars() {
        if is_start {
            titled.extend(character.to_uppercase());
        } else {
            titled.push(character);
        }
        is_start = !character.is_alphanumeric() && character != '_' && character != '\'';
    }
    titled
}

/// Go's Sprint: a space between two operands when neither is a string.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        let is_string = |value: &Value| matches!(value, Value::String(_));
        if index > 0 && !is_string(argument) && !is_string(&arguments[index - 1]) {
            text.push(' ');
        }
        text.push_str(&argument.to_string());
    }
    text
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(entries) => entries.len(),
        Value::Null | Value::Empty(_) => 0,
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Value::Integer(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("wrong number of args for index: want at least 1 got 0")?;
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(_), Value::String(name)) => {
                // Go gives the element type's zero; in the API's maps of words that prints as nothing.
                value.get(name).cloned().unwrap_or(Value::Null)
            }
            (Value::Empty(Empty::Map), Value::String(_)) => Value::Null,
            (Value::Empty(Empty::List), Value::Integer(position)) => {
                return Err(format!("index out of range: {position}"));
            }
            (Value::Map(_), other) => return Err(format!("value has type {}; should be string", other.kind())),
            (Value::List(list), Value::Integer(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| list.get(position))
                .cloned()
                .ok_or_else(|| format!("index out of range: {position}"))?,
            (Value::String(text), Value::Integer(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| text.as_bytes().get(position))
                .map(|byte| Value::Integer(i64::from(*byte)))
                .ok_or_else(|| format!("index out of range: {position}"))?,
            (Value::List(_) | Value::String(_), other) => {
                return Err(format!("cannot index slice/array with type {}", other.kind()));
            }
            (Value::Null | Value::Empty(_), _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    // A label that is not there is an empty text for `index`, where a field prints `<no value>`.
    Ok(if value == Value::Null && !keys.is_empty() { Value::String(String::new()) } else { value })
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (item, bounds) = arguments.split_first().ok_or("wrong number of args for slice: want at least 1 got 0")?;
    let length = match item {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Empty(Empty::List) => 0,
        other => return Err(format!("can't slice item of type {}", other.kind())),
    };
    let bound = |position: usize, default: usize| match bounds.get(position) {
        None => Ok(default),
        Some(Value::Integer(number)) => {
            usize::try_from(*number).ok().filter(|n| *n <= length).ok_or(format!("index out of range: {number}"))
        }
        Some(other) => Err(format!("cannot index slice/array with type {}", other.kind())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match item {
        Value::String(text) => {
            text.get(from..to).map(|part| Value::String(part.to_owned())).ok_or("it cuts a character".to_owned())
        }
        Value::List(list) => Ok(Value::List(list[from..to].to_vec())),
        Value::Empty(Empty::List) => Ok(item.clone()),
        _ => Err("can't slice".to_owned()),
    }
}

fn compare(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let [first, second, rest @ ..] = arguments else {
        return Err("missing argument for comparison".to_owned());
    };
    if !rest.is_empty() && name != "eq" {
        return Err(format!("wrong number of args for {name}: want 2 got {}", arguments.len()));
    }
    let result = match name {
        "eq" => {
            let mut is_equal = equal(first, second)?;
            for other in rest {
                is_equal = is_equal || equal(first, other)?;
            }
            is_equal
        }
        "ne" => !equal(first, second)?,
        "lt" => order(first, second)? == Ordering::Less,
        "le" => order(first, second)? != Ordering::Greater,
        "gt" => order(first, second)? == Ordering::Greater,
        _ => order(first, second)? != Ordering::Less,
    };
    Ok(Value::Boolean(result))
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null | Value::Empty(_), Value::Null | Value::Empty(_)) => Ok(true),
        (Value::Null | Value::Empty(_), _) | (_, Value::Null | Value::Empty(_)) => Ok(false),
        (Value::Boolean(a), Value::Boolean(b)) => Ok(a == b),
        _ => order(a, b).map(Ordering::is_eq),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a comparison of a whole number with a fraction")]
fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    let floats = |a: f64, b: f64| a.partial_cmp(&b).ok_or_else(|| "incomparable numbers".to_owned());
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => floats(*a, *b),
        (Value::Integer(a), Value::Float(b)) => floats(*a as f64, *b),
        (Value::Float(a), Value::Integer(b)) => floats(*a, *b as f64),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Boolean(_) | Value::Integer(_) | Value::Float(_) | Value::String(_), _) => {
            Err("incompatible types for comparison".to_owned())
        }
        _ => Err("invalid type for comparison".to_owned()),
    }
}

/// The verbs of Go's fmt that make sense here: `%s %v %d %q %t %x %X %f %c %%`, with `-`, `0`, width and precision.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut output = String::new();
    let mut characters = format.chars().peekable();
    let mut used = 0;
    while let Some(character) = characters.next() {
        if character != '%' {
            output.push(character);
            continue;
        }
        let (mut is_left, mut is_zero, mut has_sign) = (false, false, false);
        while let Some(flag) = characters.next_if(|c| matches!(c, '-' | '0' | '+' | '#' | ' ')) {
            is_left |= flag == '-';
            is_zero |= flag == '0';
            has_sign |= flag == '+';
        }
        let mut digits = || {
            let mut number = None;
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                let digit = digit.to_digit(10).unwrap_or(0) as usize;
                number = Some((number.unwrap_or(0) * 10 + digit).min(MAX_WIDTH));
            }
            number
        };
        let width = digits().unwrap_or(0);
        let precision = match characters.next_if_eq(&'.') {
            Some(_) => {
                let mut number = 0;
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    number = (number * 10 + digit.to_digit(10).unwrap_or(0) as usize).min(MAX_WIDTH);
                }
                Some(number)
            }
            None => None,
        };
        let Some(verb) = characters.next() else {
            output.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            output.push('%');
            continue;
        }
        let Some(argument) = arguments.get(used) else {
            output.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        used += 1;
        let mut text = formatted(verb, argument, precision);
        if has_sign && matches!(argument, Value::Integer(0..)) {
            text.insert(0, '+');
        }
        let padding = width.saturating_sub(text.chars().count());
        match (is_left, is_zero && matches!(argument, Value::Integer(_) | Value::Float(_))) {
            (true, _) => output.push_str(&(text + &" ".repeat(padding))),
            (false, true) => {
                let digits_at = usize::from(text.starts_with(['-', '+']));
                text.insert_str(digits_at, &"0".repeat(padding));
                output.push_str(&text);
            }
            (false, false) => output.push_str(&(" ".repeat(padding) + &text)),
        }
    }
    for (index, extra) in arguments.iter().enumerate().skip(used) {
        output.push_str(if index == used { "%!(EXTRA " } else { ", " });
        output.push_str(&format!("{}={extra}", extra.kind()));
        if index + 1 == arguments.len() {
            output.push(')');
        }
    }
    Ok(output)
}

#[expect(clippy::cast_precision_loss, reason = "a format for people")]
fn formatted(verb: char, argument: &Value, precision: Option<usize>) -> String {
    let cut = |text: String| match precision {
        Some(length) => text.chars().take(length).collect(),
        None => text,
    };
    match (verb, argument) {
        ('v' | 's', Value::Null) => "<nil>".to_owned(),
        ('v', value) => value.to_string(),
        ('s', Value::Empty(_) | Value::String(_) | Value::List(_) | Value::Map(_) | Value::Row(_)) => {
            cut(argument.to_string())
        }
        ('d', Value::Integer(number)) => number.to_string(),
        ('x', Value::Integer(number)) => format!("{number:x}"),
        ('X', Value::Integer(number)) => format!("{number:X}"),
        ('c', Value::Integer(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('f', Value::Integer(number)) => format!("{:.*}", precision.unwrap_or(6), *number as f64),
        ('t', Value::Boolean(is_true)) => is_true.to_string(),
        ('q', Value::String(_)) => argument.to_json(),
        ('q', Value::List(list)) => {
            format!("[{}]", list.iter().map(|value| formatted('q', value, None)).collect::<Vec<_>>().join(" "))
        }
        (verb, other) => format!("%!{verb}({}={other})", other.kind()),
    }
}
