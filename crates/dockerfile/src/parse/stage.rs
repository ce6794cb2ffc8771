//! FROM (docs.docker.com/reference/dockerfile, "FROM").

use super::Request;
use crate::error::Error;
use crate::flags::Takes;
use crate::instruction::{Alias, From};

pub(super) fn from(request: &Request<'_, '_, '_>) -> Result<From, Error> {
    let (flags, rest) = request.flags(&[("platform", Takes::Value)])?;
    let words = rest.split_blanks();
    let (base, alias) = match words.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.as_str().eq_ignore_ascii_case("as") => {
            (base, Some(Alias { keyword: keyword.word(), name: name.word() }))
        }
        _ => {
            return Err(request
                .error("FROM requires either one or three arguments")
                .with_hint("FROM IMAGE, or FROM IMAGE AS NAME"));
        }
    };
    if let Some(Alias { name, .. }) = &alias
        && !is_stage_name(&name.text)
    {
        let message =
            format!("invalid name for build stage: {:?}, name can't start with a number or contain symbols", name.text);
        return Err(Error::new(message, name.span)
            .with_hint("a stage's name is a letter, and then letters, digits, '-', '_' and '.'"));
    }
    Ok(From { platform: flags.value("platform"), base: base.word(), alias })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
