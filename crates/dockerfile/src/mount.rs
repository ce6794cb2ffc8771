//! `RUN --mount` (docs.docker.com/reference/dockerfile, "RUN --mount").
//!
//! Values may hold variables, so a mount is kept as it was written, and becomes a [`MountSpec`] once they are known. What
//! holds none is looked at when the file is parsed. The words of the errors are BuildKit's.

mod resolve;

use dozen_model::spelling;

use crate::error::Error;
use crate::span::Span;
use crate::text::Word;

/// A mount as it was written. Names and what they may stand with have been looked at, as far as nothing is expanded.
#[derive(Debug, Clone)]
pub struct Mount {
    fields: Vec<Field>,
    span: Span,
}

/// Equal if they say the same, wherever they stand.
impl PartialEq for Mount {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Mount {}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    key: Key,
    /// As it was written: `dst`, `readonly`.
    name: String,
    value: Option<Word>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Type,
    From,
    Source,
    Target,
    ReadOnly,
    ReadWrite,
    Id,
    Sharing,
    Required,
    Mode,
    User,
    Group,
    Size,
    Env,
}

const KEYS: [(&str, Key); 19] = [
    ("type", Key::Type),
    ("from", Key::From),
    ("source", Key::Source),
    ("src", Key::Source),
    ("target", Key::Target),
    ("dst", Key::Target),
    ("destination", Key::Target),
    ("readonly", Key::ReadOnly),
    ("ro", Key::ReadOnly),
    ("readwrite", Key::ReadWrite),
    ("rw", Key::ReadWrite),
    ("id", Key::Id),
    ("sharing", Key::Sharing),
    ("required", Key::Required),
    ("mode", Key::Mode),
    ("uid", Key::User),
    ("gid", Key::Group),
    ("size", Key::Size),
    ("env", Key::Env),
];

/// A mount whose variables are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSpec {
    /// Files of the context, of a stage or of an image; what is written to it is thrown away.
    Bind {
        /// A stage, an image or a named context; the build's context if there is none.
        from: Option<String>,
        /// A path in it; its root if there is none.
        source: Option<String>,
        /// Where it is mounted.
        target: String,
        /// It may be written to.
        is_writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which one; by its target if nothing is said.
        id: Option<String>,
        /// Where it is mounted.
        target: String,
        /// What happens if two builds want it.
        sharing: Sharing,
        /// What it begins with, as for a bind.
        from: Option<String>,
        /// A path in it.
        source: Option<String>,
        /// Who owns it when it is made.
        owner: Owner,
        /// It may be written to.
        is_writable: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where it is mounted.
        target: String,
        /// At most so much.
        size_bytes: Option<u64>,
    },
    /// A file that only this command sees, or a variable, or both.
    Secret {
        /// What the caller calls it.
        id: String,
        /// Where it is mounted; if neither this nor `env` is said, at /run/secrets/ID.
        target: Option<String>,
        /// The variable that has it.
        env: Option<String>,
        /// A build without it fails.
        is_required: bool,
        /// Who may read it.
        owner: Owner,
    },
    /// The socket of an agent that has keys.
    Ssh {
        /// What the caller calls it: `default` unless said.
        id: String,
        /// Where the socket is; the builder's choice if nothing is said.
        target: Option<String>,
        /// A build without it fails.
        is_required: bool,
        /// Who may use it.
        owner: Owner,
    },
}

/// What two builds do that want one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// They have it together.
    #[default]
    Shared,
    /// The second has another one.
    Private,
    /// The second waits.
    Locked,
}

/// Permissions and owner of what is mounted; what is not said has the kind's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The permissions' bits.
    pub mode: Option<u32>,
    /// The user's number.
    pub user: Option<u32>,
    /// The group's number.
    pub group: Option<u32>,
}

impl Mount {
    /// Reads the flag's value: `type=cache,target=/root/.cache`.
    pub(crate) fn read(flag: &Word) -> Result<Self, Error> {
        let mut fields = Vec::new();
        let mut at = 0;
        // A value in which nothing was quoted stands in the file as it is, and its fields have places of their own.
        let is_plain = flag.span.end - flag.span.start == flag.text.len();
        for part in separated(&flag.text).map_err(|why| Error::new(why, flag.span))? {
            let length = part.len();
            let span = match is_plain && flag.text[at..].starts_with(&part) {
                true => Span { start: flag.span.start + at, end: flag.span.start + at + length },
                false => flag.span,
            };
            at = (at + length + 1).min(flag.text.len());
            fields.push(Field::read(&part, span)?);
        }
        let mount = Self { fields, span: flag.span };
        if let Some(from) = mount.word(Key::From).filter(|from| from.text.contains('$')) {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            return Err(Error::new(message, from.span));
        }
        if !mount.words().any(|word| word.text.contains('$')) {
            mount.resolve(|word| Ok(word.text.clone()))?;
        }
        Ok(mount)
    }

    /// The values that are expanded.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.fields.iter().filter(|field| field.key != Key::From).filter_map(|field| field.value.as_ref())
    }

    /// `from`, which is not expanded: a stage, an image or a named context.
    pub fn from(&self) -> Option<&Word> {
        self.word(Key::From)
    }

    /// Where it is mounted, as it was written.
    pub fn target(&self) -> Option<&Word> {
        self.word(Key::Target)
    }

    /// What it is, once variables are known.
    pub fn resolve(&self, expand: impl Fn(&Word) -> Result<String, Error>) -> Result<MountSpec, Error> {
        let values = resolve::Values { mount: self, expand: &expand };
        let kind = values.text(Key::Type)?.unwrap_or_else(|| "bind".to_owned());
        match kind.to_ascii_lowercase().as_str() {
            "bind" => values.bind(),
            "cache" => values.cache(),
            "tmpfs" => values.tmpfs(),
            "secret" => values.secret(),
            "ssh" => values.ssh(),
            _ => {
                let near = spelling::closest(&kind, ["bind", "cache", "tmpfs", "secret", "ssh"].into_iter());
                let span = self.word(Key::Type).map_or(self.span, |word| word.span);
                Err(Error::new(format!("unsupported mount type {kind:?}"), span).with_suggestion(near))
            }
        }
    }

    fn word(&self, key: Key) -> Option<&Word> {
        self.fields.iter().rev().find(|field| field.key == key).and_then(|field| field.value.as_ref())
    }
}

impl Field {
    fn read(text: &str, span: Span) -> Result<Self, Error> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let lower = name.to_ascii_lowercase();
        let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == lower) else {
            let near = spelling::closest(&lower, KEYS.iter().map(|(known, _)| *known));
            return Err(Error::new(format!("unexpected key '{lower}' in '{text}'"), span).with_suggestion(near));
        };
        let may_be_alone = matches!(key, Key::ReadOnly | Key::ReadWrite | Key::Required);
        if value.is_none() && !may_be_alone {
            return Err(Error::new(format!("invalid field '{text}' must be a key=value pair"), span));
        }
        let value = value.map(|value| {
            // Where the field has no place of its own, neither has its value.
            let start = if span.end - span.start == text.len() { span.start + name.len() + 1 } else { span.start };
            Word { text: value.to_owned(), span: Span { start, end: span.end } }
        });
        Ok(Self { key: *key, name: name.to_owned(), value })
    }
}

/// The fields of a line of comma-separated values (RFC 4180).
fn separated(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut characters = text.chars().peekable();
    let mut is_quoted = false;
    let mut is_first = true;
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("there is one");
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' if is_quoted => is_quoted = false,
            '"' if is_first => is_quoted = true,
            ',' if !is_quoted => {
                fields.push(String::new());
                is_first = true;
                continue;
            }
            _ => field.push(character),
        }
        is_first = false;
    }
    if is_quoted { Err(format!("failed to parse csv mounts: a quote in {text} has no end")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests;
