//! Which rules speak, and whether they fail the build: `# check=skip=A,B;error=true;experimental=C`
//! (docs.docker.com/reference/dockerfile, "check"), or the build argument BUILDKIT_DOCKERFILE_CHECK in its place.

use super::rule::Rule;

/// What a check directive says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    skip: Named,
    experimental: Named,
    /// Findings are an error.
    pub is_error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Named {
    #[default]
    None,
    All,
    /// Also names that we do not know: those of newer frontends.
    These(Vec<String>),
}

impl Named {
    fn read(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::These(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(names) => names.iter().any(|name| name == rule.name()),
        }
    }
}

impl Choice {
    /// Reads a directive's value; words on what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut choice = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("invalid check option {option:?}"))?;
            match key.trim() {
                "skip" => choice.skip = Named::read(value),
                "experimental" => choice.experimental = Named::read(value),
                "error" => {
                    choice.is_error = match value.trim() {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        _ => return Err(format!("failed to parse check option {option:?}: want true or false")),
                    }
                }
                _ => return Err(format!("invalid check option {option:?}")),
            }
        }
        Ok(choice)
    }

    /// The rule is to be heard.
    pub fn wants(&self, rule: Rule) -> bool {
        match rule.is_experimental() {
            // Who asks for it by name wants it, whatever else is left out.
            true => self.experimental.has(rule) && !matches!(&self.skip, Named::These(_) if self.skip.has(rule)),
            false => !self.skip.has(rule),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_chosen() {
        let wanted = |text: &str| {
            let choice = Choice::read(text).unwrap();
            let rules = [Rule::FromAsCasing, Rule::UndefinedVar, Rule::CopyIgnoredFile];
            (rules.map(|rule| choice.wants(rule)), choice.is_error)
        };
        for (text, expected) in [
            ("", ([true, true, false], false)),
            ("skip=all", ([false, false, false], false)),
            ("skip= FromAsCasing , OfTomorrow ;error=true", ([false, true, false], true)),
            ("error=0; experimental=all", ([true, true, true], false)),
            ("skip=all;experimental=CopyIgnoredFile", ([false, false, true], false)),
            ("skip=CopyIgnoredFile;experimental=all;", ([true, true, false], false)),
        ] {
            assert_eq!(wanted(text), expected, "{text}");
        }
        for bad in ["skip", "error=maybe", "other=1"] {
            assert!(Choice::read(bad).is_err(), "{bad}");
        }
    }
}
