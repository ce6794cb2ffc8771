//! Messages of D-Bus, as far as systemd's manager needs them (the D-Bus specification, "Message Protocol").
//!
//! Little-endian only, which is what every machine says that containers run on. What comes in is not trusted: lengths are
//! bounded and checked before anything is copied.

#[cfg(test)]
pub(super) mod tests;

/// The longest message that is read. The specification allows 128 MiB; what systemd answers us has some hundred bytes.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// How much of a message says how long it is.
pub(super) const PREFIX_BYTES: usize = 16;

const METHOD_CALL: u8 = 1;
const VERSION: u8 = 1;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message of D-Bus that can be understood: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
}

/// Writes values one after another, each aligned as its type wants.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn align(&mut self, boundary: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(boundary), 0);
        self
    }

    pub(super) fn byte(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub(super) fn number(&mut self, value: u32) -> &mut Self {
        self.align(4).bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn long_number(&mut self, value: u64) -> &mut Self {
        self.align(8).bytes.extend(value.to_le_bytes());
        self
    }

    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.number(u32::from(value))
    }

    /// A string or the path of an object. It must not contain a null byte.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        debug_assert!(!text.contains('\0'));
        self.number(text.len() as u32).bytes.extend(text.as_bytes());
        self.byte(0)
    }

    pub(super) fn signature(&mut self, signature: &str) -> &mut Self {
        self.byte(signature.len() as u8).bytes.extend(signature.as_bytes());
        self.byte(0)
    }

    /// An array; its length does not count what aligns the first element.
    pub(super) fn array(&mut self, boundary: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
        let place = self.number(0).bytes.len() - 4;
        let start = self.align(boundary).bytes.len();
        elements(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) -> &mut Self {
        self.array(8, |array| {
            for (name, value) in properties {
                array.align(8).text(name).value(value);
            }
        })
    }

    /// A variant.
    fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Text(text) => self.signature("s").text(text),
            Value::Flag(flag) => self.signature("b").flag(*flag),
            Value::Number(number) => self.signature("t").long_number(*number),
            Value::Bytes(bytes) => self.signature("ay").array(1, |array| array.bytes.extend(bytes)),
            Value::Numbers(numbers) => self.signature("au").array(4, |array| {
                for number in numbers {
                    array.number(*number);
                }
            }),
        }
    }
}

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) method: &'a str,
}

impl Call<'_> {
    /// The whole message. `signature` says what has been written to `body`.
    pub(super) fn encode(&self, serial: u32, signature: &str, body: &Writer) -> Vec<u8> {
        let mut message = Writer::default();
        message.byte(b'l').byte(METHOD_CALL).byte(0).byte(VERSION);
        message.number(body.bytes.len() as u32).number(serial);
        message.array(8, |fields| {
            let texts =
                [(1, "o", self.path), (2, "s", self.interface), (3, "s", self.method), (6, "s", self.destination)];
            for (code, kind, text) in texts {
                fields.align(8).byte(code).signature(kind).text(text);
            }
            if !signature.is_empty() {
                fields.align(8).byte(8).signature("g").signature(signature);
            }
        });
        message.align(8).bytes.extend(&body.bytes);
        message.bytes
    }
}

/// A message that has come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Of the call that it answers.
    pub(super) reply_to: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error_name: String,
    pub(super) sender: String,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    /// A call of ours to answer, or what later versions of the protocol may invent.
    #[default]
    Other,
}

impl Message {
    /// From its first [`PREFIX_BYTES`], how long the whole message is.
    pub(super) fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Malformed> {
        if (prefix[0], prefix[3]) != (b'l', VERSION) {
            return Err(Malformed("neither little-endian nor of version 1"));
        }
        let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        let (body, fields) = (number(4) as usize, number(12) as usize);
        if body > MOST_BYTES || fields > MOST_BYTES {
            return Err(Malformed("too long"));
        }
        let whole = (PREFIX_BYTES + fields).next_multiple_of(8) + body;
        if whole > MOST_BYTES { Err(Malformed("too long")) } else { Ok(whole) }
    }

    /// A whole message.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let prefix = bytes.first_chunk::<PREFIX_BYTES>().ok_or(Malformed("too short"))?;
        if Self::length(prefix)? != bytes.len() {
            return Err(Malformed("not as long as it says"));
        }
        let kind = match prefix[1] {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        let mut message = Self { kind, ..Self::default() };
        let mut reader = Reader { bytes, at: 12 };
        let end = reader.number()? as usize + PREFIX_BYTES;
        while reader.at < end {
            reader.align(8)?;
            let (code, kind) = (reader.byte()?, reader.signature()?);
            let text = match kind {
                "s" | "o" => reader.text()?,
                "g" => reader.signature()?,
                "u" => {
                    let number = reader.number()?;
                    if code == 5 {
                        message.reply_to = Some(number);
                    }
                    continue;
                }
                _ => return Err(Malformed("a header's field of a type that none has")),
            };
            match code {
                2 => text.clone_into(&mut message.interface),
                3 => text.clone_into(&mut message.member),
                4 => text.clone_into(&mut message.error_name),
                7 => text.clone_into(&mut message.sender),
                8 => text.clone_into(&mut message.signature),
                _ => {}
            }
        }
        if reader.at != end {
            return Err(Malformed("a header's field beyond the header"));
        }
        reader.align(8)?;
        message.body = bytes.get(reader.at..).unwrap_or_default().to_vec();
        Ok(message)
    }

    /// The texts of a body whose signature is made of `u`, `s` and `o`; numbers are passed over.
    pub(super) fn texts(&self) -> Result<Vec<&str>, Malformed> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut texts = Vec::new();
        for kind in self.signature.bytes() {
            match kind {
                b's' | b'o' => texts.push(reader.text()?),
                b'u' => drop(reader.number()?),
                _ => return Err(Malformed("an answer of another type than expected")),
            }
        }
        Ok(texts)
    }
}

impl Message {
    /// The job of a unit's, in a body that is a variant with one: its number and its path; 0 is none.
    pub(super) fn job(&self) -> Result<u32, Malformed> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        if self.signature != "v" || reader.signature()? != "(uo)" {
            return Err(Malformed("an answer of another type than expected"));
        }
        reader.align(8)?;
        reader.number()
    }
}

/// Reads values; no read goes beyond the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("too long"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, boundary: usize) -> Result<(), Malformed> {
        let padding = self.take(self.at.next_multiple_of(boundary) - self.at)?;
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Malformed("padding that is not zero")) }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.number()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text that is not UTF-8"))?;
        if self.byte()? != 0 || text.contains('\0') {
            return Err(Malformed("a text that does not end with its only null byte"));
        }
        Ok(text)
    }
}
