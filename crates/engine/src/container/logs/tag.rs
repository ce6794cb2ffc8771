//! `--log-opt tag=`: a Go template over a container's names (Docker's "Customize log driver output").
//!
//! Of Go's language there are fields and, after them or before, the functions that change case: what is more is refused.

use std::str::FromStr;

use dozen_model::{ContainerId, ContainerName, ContainerSpec};

use crate::EngineError;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field, Vec<Function>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    FullId,
    Name,
    FullName,
    ImageId,
    ImageFullId,
    ImageName,
    DaemonName,
}

const FIELDS: [(&str, Field); 8] = [
    (".ID", Field::Id),
    (".FullID", Field::FullId),
    (".Name", Field::Name),
    (".ContainerName", Field::FullName),
    (".ImageID", Field::ImageId),
    (".ImageFullID", Field::ImageFullId),
    (".ImageName", Field::ImageName),
    (".DaemonName", Field::DaemonName),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Lower,
    Upper,
}

/// What the fields stand for.
#[derive(Debug, Clone)]
pub(super) struct Values {
    id: String,
    name: String,
    image: String,
    image_name: String,
}

impl Values {
    pub(super) fn of(id: &ContainerId, name: &ContainerName, spec: &ContainerSpec) -> Self {
        Self {
            id: id.to_string(),
            name: name.to_string(),
            image: spec.image.to_string(),
            image_name: spec.image_name.clone(),
        }
    }

    fn get(&self, field: Field) -> String {
        // As in Docker, where an image's id begins with the name of its digest's algorithm.
        let first = |text: &str| text.chars().take(12).collect();
        match field {
            Field::Id => first(&self.id),
            Field::FullId => self.id.clone(),
            Field::Name => self.name.clone(),
            Field::FullName => format!("/{}", self.name),
            Field::ImageId => first(&self.image),
            Field::ImageFullId => self.image.clone(),
            Field::ImageName => self.image_name.clone(),
            // Docker's word, which filters of others look for.
            Field::DaemonName => "docker".to_owned(),
        }
    }
}

impl Tag {
    /// The text for a container.
    pub(super) fn render(&self, values: &Values) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field, functions) => {
                functions.iter().fold(values.get(*field), |text, function| match function {
                    Function::Lower => text.to_lowercase(),
                    Function::Upper => text.to_uppercase(),
                })
            }
        };
        self.0.iter().map(part).collect()
    }
}

impl FromStr for Tag {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let bad = |why: String| EngineError::Invalid {
            message: format!("invalid value for the log option tag: {why}"),
            hint: Some(format!("fields are {}", FIELDS.map(|(name, _)| name).join(", "))),
        };
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((plain, action)) = rest.split_once("{{") {
            parts.push(Part::Text(plain.to_owned()));
            let (action, after) = action.split_once("}}").ok_or_else(|| bad(format!("unclosed action in {text:?}")))?;
            parts.push(parse_action(action).map_err(|word| bad(format!("{word:?} is not known in {text:?}")))?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }
}

/// `.Name`, `upper .Name`, `.Name | upper`; or the word that is none.
fn parse_action(action: &str) -> Result<Part, String> {
    let function = |word: &str| match word {
        "lower" => Ok(Function::Lower),
        "upper" => Ok(Function::Upper),
        _ => Err(word.to_owned()),
    };
    let mut steps = action.split('|').map(str::trim);
    let first = steps.next().unwrap_or_default();
    let mut words: Vec<&str> = first.split_whitespace().collect();
    let name = words.pop().unwrap_or_default();
    let (_, field) = FIELDS.iter().find(|(known, _)| *known == name).ok_or_else(|| name.to_owned())?;
    if words.len() > 1 {
        return Err(first.to_owned());
    }
    Ok(Part::Field(*field, words.into_iter().chain(steps).map(function).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, want: Result<&str, &str>) {
        let values = Values {
            id: "0123456789abcdef".into(),
            name: "Web".into(),
            image: "sha256:fedcba".into(),
            image_name: "nginx:1".into(),
        };
        match (template.parse::<Tag>(), want) {
            (Ok(tag), Ok(want)) => assert_eq!(tag.render(&values), want),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (got, want) => panic!("{template}: {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn templates_are_filled_in_or_refused() {
        check("", Ok(""));
        check("plain", Ok("plain"));
        check("{{.ID}}", Ok("0123456789ab"));
        check("{{.ImageName}}/{{ .Name }}/{{.FullID}}", Ok("nginx:1/Web/0123456789abcdef"));
        check("{{.ContainerName}}{{.ImageID}}", Ok("/Websha256:fedcb"));
        check("a{{.DaemonName}}b", Ok("adockerb"));
        check("{{upper .Name}}{{.Name | lower}}", Ok("WEBweb"));
        check("{{.Secret}}", Err("\".Secret\" is not known"));
        check("{{with .Name}}x{{end}}", Err("\"with\" is not known"));
        check("{{title .Name}}", Err("\"title\" is not known"));
        check("{{.Name", Err("unclosed action"));
        check("{{}}", Err("\"\" is not known"));
    }
}
