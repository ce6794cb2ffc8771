//! What templates work on: JSON in the order in which it came, and rows of listings.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: JSON's null, or what is not there.
    Null,
    /// Nothing, of a type that is known: JSON's null too, but it prints as Go prints the type.
    Empty(Empty),
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// An object, in its own order.
    Map(Vec<(String, Value)>),
    /// A line of a listing.
    Row(Rc<Row>),
}

/// Go's nil has a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// `[]`
    List,
    /// `map[]`
    Map,
    /// `<nil>`
    Pointer,
    /// `{}`: not nil, and without fields.
    Struct,
}

/// A line of a listing: columns by name, all of them text, and labels that `.Label "name"` looks up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Name and value of each column.
    pub columns: Vec<(&'static str, String)>,
    /// Labels; `None` for kinds of rows that have none.
    pub labels: Option<Vec<(String, String)>>,
}

impl Row {
    /// The column of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(column, _)| *column == name).map(|(_, value)| value.as_str())
    }
}

impl Value {
    /// Parses JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The entry of a map.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Go's rule: what is empty or zero is false.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null | Self::Empty(Empty::List | Empty::Map | Empty::Pointer) => false,
            Self::Boolean(is_true) => *is_true,
            Self::Integer(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            Self::Row(_) | Self::Empty(Empty::Struct) => true,
        }
    }

    /// What this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Empty(Empty::Pointer) => "nil",
            Self::Boolean(_) => "bool",
            Self::Integer(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) | Self::Empty(Empty::List) => "slice",
            Self::Map(_) | Self::Empty(Empty::Map) => "map",
            Self::Row(_) => "row",
            Self::Empty(Empty::Struct) => "struct",
        }
    }

    /// JSON without spaces.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text);
        text
    }

    fn write_json(&self, text: &mut String) {
        let object = |text: &mut String, entries: &mut dyn Iterator<Item = (String, Value)>| {
            text.push('{');
            for (index, (key, value)) in entries.enumerate() {
                if index > 0 {
                    text.push(',');
                }
                Self::String(key).write_json(text);
                text.push(':');
                value.write_json(text);
            }
            text.push('}');
        };
        match self {
            Self::Empty(Empty::Struct) => text.push_str("{}"),
            Self::Null | Self::Empty(_) => text.push_str("null"),
            Self::Boolean(is_true) => text.push_str(if *is_true { "true" } else { "false" }),
            Self::Integer(number) => text.push_str(&number.to_string()),
            Self::Float(number) => text.push_str(&serde_json::Value::from(*number).to_string()),
            Self::String(string) => text.push_str(&serde_json::Value::from(string.as_str()).to_string()),
            Self::List(list) => {
                text.push('[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    value.write_json(text);
                }
                text.push(']');
            }
            Self::Map(entries) => object(text, &mut entries.iter().cloned()),
            Self::Row(row) => {
                let mut columns = row.columns.clone();
                columns.sort_unstable();
                object(text, &mut columns.into_iter().map(|(key, value)| (key.to_owned(), Self::String(value))));
            }
        }
    }
}

/// Go's `%v`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<no value>"),
            Self::Empty(Empty::List) => f.write_str("[]"),
            Self::Empty(Empty::Map) => f.write_str("map[]"),
            Self::Empty(Empty::Pointer) => f.write_str("<nil>"),
            Self::Empty(Empty::Struct) => f.write_str("{}"),
            // The one struct that people print whole: the port of `NetworkSettings.Ports`.
            Self::Map(entries) if matches!(entries.as_slice(), [(ip, _), (port, _)] if ip == "HostIp" && port == "HostPort") =>
            {
                write!(f, "{{{} {}}}", entries[0].1, entries[1].1)
            }
            Self::Boolean(is_true) => write!(f, "{is_true}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { " " } else { "" }, Nested(value))?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                f.write_str("map[")?;
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    write!(f, "{}{key}:{}", if index > 0 { " " } else { "" }, Nested(value))?;
                }
                f.write_str("]")
            }
            Self::Row(_) => f.write_str(&self.to_json()),
        }
    }
}

/// Within a list or map Go writes nothing as `<nil>`.
struct Nested<'a>(&'a Value);

impl fmt::Display for Nested<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            value => value.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "as Go's float64 has it")]
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
