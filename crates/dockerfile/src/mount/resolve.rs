//! From a mount's fields to what it is: each kind takes those that mean something to it.

use super::{Field, Key, Mount, MountSpec, Owner, Sharing};
use crate::error::Error;
use crate::text::Word;

/// A mount's fields while it becomes a [`MountSpec`].
pub(super) struct Values<'a, E> {
    pub mount: &'a Mount,
    pub expand: &'a E,
}

impl<E: Fn(&Word) -> Result<String, Error>> Values<'_, E> {
    pub fn bind(&self) -> Result<MountSpec, Error> {
        self.only("bind", &[Key::From, Key::Source, Key::Target, Key::ReadOnly, Key::ReadWrite])?;
        Ok(MountSpec::Bind {
            from: self.from(),
            source: self.text(Key::Source)?,
            target: self.target("bind")?,
            is_writable: self.is_writable(false)?,
        })
    }

    pub fn cache(&self) -> Result<MountSpec, Error> {
        let keys = [Key::From, Key::Source, Key::Target, Key::ReadOnly, Key::ReadWrite, Key::Id, Key::Sharing];
        self.only("cache", &[&keys[..], &OWNER].concat())?;
        Ok(MountSpec::Cache {
            id: self.text(Key::Id)?,
            target: self.target("cache")?,
            sharing: match self.text(Key::Sharing)?.map(|text| text.to_ascii_lowercase()).as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => return self.wrong(Key::Sharing, format!("unsupported sharing value {other:?}")),
            },
            from: self.from(),
            source: self.text(Key::Source)?,
            owner: self.owner()?,
            is_writable: self.is_writable(true)?,
        })
    }

    pub fn tmpfs(&self) -> Result<MountSpec, Error> {
        self.only("tmpfs", &[Key::Target, Key::Size, Key::ReadOnly, Key::ReadWrite])?;
        let size_bytes = match self.text(Key::Size)? {
            None => None,
            Some(text) => match size(&text) {
                Some(bytes) => Some(bytes),
                None => return self.wrong(Key::Size, format!("invalid value for size: {text}")),
            },
        };
        Ok(MountSpec::Tmpfs { target: self.target("tmpfs")?, size_bytes })
    }

    pub fn secret(&self) -> Result<MountSpec, Error> {
        let keys = [Key::Id, Key::Source, Key::Target, Key::Env, Key::Required, Key::ReadOnly, Key::ReadWrite];
        self.only("secret", &[&keys[..], &OWNER].concat())?;
        let (source, id, target) = (self.text(Key::Source)?, self.text(Key::Id)?, self.text(Key::Target)?);
        if source.is_some() && id.is_some() {
            return self.wrong(Key::Source, "both source and id can't be set".to_owned());
        }
        let of_target = target.as_deref().and_then(|target| target.rsplit('/').next()).map(str::to_owned);
        let Some(id) = id.or(source).or(of_target).filter(|id| !id.is_empty()) else {
            return self.wrong(Key::Id, "invalid secret mount. one of source, target required".to_owned());
        };
        let is_required = self.is_on(Key::Required)?.unwrap_or(false);
        Ok(MountSpec::Secret { id, target, env: self.text(Key::Env)?, is_required, owner: self.owner()? })
    }

    pub fn ssh(&self) -> Result<MountSpec, Error> {
        let keys = [Key::Id, Key::Target, Key::Required, Key::ReadOnly, Key::ReadWrite];
        self.only("ssh", &[&keys[..], &OWNER].concat())?;
        Ok(MountSpec::Ssh {
            id: self.text(Key::Id)?.unwrap_or_else(|| "default".to_owned()),
            target: self.text(Key::Target)?,
            is_required: self.is_on(Key::Required)?.unwrap_or(false),
            owner: self.owner()?,
        })
    }

    /// No field means nothing: what the kind has no use for is refused.
    fn only(&self, kind: &str, keys: &[Key]) -> Result<(), Error> {
        let unwanted = self.mount.fields.iter().find(|field| field.key != Key::Type && !keys.contains(&field.key));
        let Some(field) = unwanted else { return Ok(()) };
        let message = match field.key {
            Key::Mode | Key::User | Key::Group => format!("{} not allowed for {kind:?} type mounts", field.name),
            Key::Sharing => format!("invalid cache sharing set for {kind} mount"),
            Key::From if kind == "secret" => "secret mount should not have a from".to_owned(),
            _ => format!("unexpected key '{}' for mount type '{kind}'", field.name),
        };
        Err(Error::new(message, field.value.as_ref().map_or(self.mount.span, |value| value.span)))
    }

    pub fn text(&self, key: Key) -> Result<Option<String>, Error> {
        self.mount.word(key).map(|word| (self.expand)(word)).transpose()
    }

    fn from(&self) -> Option<String> {
        self.mount.from().map(|word| word.text.clone())
    }

    fn target(&self, kind: &str) -> Result<String, Error> {
        match self.text(Key::Target)? {
            Some(target) if !target.is_empty() => Ok(target),
            _ => self.wrong(Key::Target, format!("a {kind} mount needs a target")),
        }
    }

    fn is_writable(&self, default: bool) -> Result<bool, Error> {
        // The last one counts.
        let both = self.mount.fields.iter().rev().find(|it| matches!(it.key, Key::ReadOnly | Key::ReadWrite));
        match both {
            Some(field) => Ok((self.truth(field)?) == (field.key == Key::ReadWrite)),
            None => Ok(default),
        }
    }

    fn is_on(&self, key: Key) -> Result<Option<bool>, Error> {
        let field = self.mount.fields.iter().rev().find(|field| field.key == key);
        field.map(|field| self.truth(field)).transpose()
    }

    /// What Go's strconv.ParseBool takes; a name alone is true.
    fn truth(&self, field: &Field) -> Result<bool, Error> {
        let Some(word) = &field.value else { return Ok(true) };
        let text = (self.expand)(word)?;
        match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(Error::new(format!("invalid value for {}: {text}", field.name), word.span)),
        }
    }

    fn owner(&self) -> Result<Owner, Error> {
        let number = |key, radix, name| match self.text(key)? {
            None => Ok(None),
            Some(text) => match u32::from_str_radix(&text, radix) {
                Ok(number) if !text.starts_with('+') => Ok(Some(number)),
                _ => self.wrong(key, format!("invalid value {text} for {name}")),
            },
        };
        Ok(Owner {
            mode: number(Key::Mode, 8, "mode")?,
            user: number(Key::User, 10, "uid")?,
            group: number(Key::Group, 10, "gid")?,
        })
    }

    fn wrong<T>(&self, key: Key, message: String) -> Result<T, Error> {
        Err(Error::new(message, self.mount.word(key).map_or(self.mount.span, |word| word.span)))
    }
}

const OWNER: [Key; 3] = [Key::Mode, Key::User, Key::Group];

/// Bytes, or with a suffix of Docker's: `64m`, `1g`.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().next_back()? {
        (at, 'k') => (&lower[..at], 10),
        (at, 'm') => (&lower[..at], 20),
        (at, 'g') => (&lower[..at], 30),
        (at, 't') => (&lower[..at], 40),
        _ => (lower, 0),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
