//! ENV, LABEL and ARG: names and what they are (docs.docker.com/reference/dockerfile).

use super::Request;
use crate::error::Error;
use crate::instruction::{Arg, Declaration, KeyValue, KeyValues};
use crate::one_or_more::OneOrMore;
use crate::text::Text;
use crate::words::quoted;

/// `key=value …`, or `key value` of old: which one it is shows the first word.
pub(super) fn key_values(request: &Request<'_, '_, '_>) -> Result<KeyValues, Error> {
    let name = &request.name;
    let rest = request.argument("at least one argument")?;
    let words = quoted(rest, request.escape());
    let first = words.first().expect("the rest is not blank");
    if !first.as_str().contains('=') {
        let (key, value) = rest.split_first();
        if value.is_empty() {
            return Err(request
                .error(format!("{name} must have two arguments"))
                .with_hint(format!("{name} {key}=VALUE", key = key.as_str())));
        }
        return Ok(KeyValues::Legacy(KeyValue { key: key.word(), value: value.word() }));
    }
    let pairs = words.into_iter().map(|word| pair(word, name)).collect::<Result<Vec<_>, _>>()?;
    Ok(KeyValues::Pairs(OneOrMore::new(pairs).expect("there is a first word")))
}

fn pair(word: Text<'_>, name: &str) -> Result<KeyValue, Error> {
    let text = word.as_str();
    let Some(at) = text.find('=') else {
        let message = format!("Syntax error - can't find = in {text:?}. Must be of the form: name=value");
        return Err(Error::new(message, word.span()).with_hint("a value with blanks stands in quotes"));
    };
    if at == 0 {
        return Err(Error::new(format!("{name} names can not be blank"), word.span()));
    }
    Ok(KeyValue { key: word.part(0, at).word(), value: word.after(at + 1).word() })
}

pub(super) fn arg(request: &Request<'_, '_, '_>) -> Result<Arg, Error> {
    let rest = request.argument("at least one argument")?;
    let declaration = |word: Text<'_>| match word.as_str().find('=') {
        None => Ok(Declaration { name: word.word(), default: None }),
        Some(0) => Err(Error::new("ARG names can not be blank", word.span())),
        Some(at) => Ok(Declaration { name: word.part(0, at).word(), default: Some(word.after(at + 1).word()) }),
    };
    let declarations = quoted(rest, request.escape()).into_iter().map(declaration).collect::<Result<Vec<_>, _>>()?;
    Ok(Arg { declarations: OneOrMore::new(declarations).expect("the rest is not blank") })
}
