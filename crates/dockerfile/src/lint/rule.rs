//! The rules by name (docs.docker.com/reference/build-checks). Names, addresses and words are Docker's: scripts and
//! `# check=skip=` know them.

/// A build check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Stage names in small letters.
    StageNameCasing,
    /// `FROM … AS`, `from … as`.
    FromAsCasing,
    /// No empty line between continuation lines.
    NoEmptyContinuation,
    /// All keywords in capitals, or all in small letters.
    ConsistentInstructionCasing,
    /// No two stages of one name.
    DuplicateStageName,
    /// No stage named `scratch` or `context`.
    ReservedStageName,
    /// CMD and ENTRYPOINT without a shell between them and signals.
    JsonArgsRecommended,
    /// A label instead of MAINTAINER.
    MaintainerDeprecated,
    /// FROM uses what is declared before it.
    UndefinedArgInFrom,
    /// The first WORKDIR is absolute.
    WorkdirRelativePath,
    /// Variables are declared before they are used.
    UndefinedVar,
    /// One CMD, ENTRYPOINT and HEALTHCHECK in a stage.
    MultipleInstructionsDisallowed,
    /// `ENV key=value`, not `ENV key value`.
    LegacyKeyValueFormat,
    /// No `FROM --platform=$TARGETPLATFORM`: that is the default.
    RedundantTargetPlatform,
    /// No passwords in ARG and ENV.
    SecretsUsedInArgOrEnv,
    /// The defaults of the ARGs before FROM make names of images.
    InvalidDefaultArgInFrom,
    /// No constant `FROM --platform`.
    FromPlatformFlagConstDisallowed,
    /// Nothing is copied that `.dockerignore` leaves out.
    CopyIgnoredFile,
    /// A comment above an ARG or a FROM describes it.
    InvalidDefinitionDescription,
    /// `EXPOSE 80/tcp`, not `80/TCP`.
    ExposeProtoCasing,
    /// EXPOSE has no address and no host's port.
    ExposeInvalidFormat,
}

/// Every rule: what it is called, its page, what it is about.
const RULES: [(Rule, &str, &str, &str); 21] = [
    (Rule::StageNameCasing, "StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
    (
        Rule::FromAsCasing,
        "FromAsCasing",
        "from-as-casing",
        "The 'as' keyword should match the case of the 'from' keyword",
    ),
    (
        Rule::NoEmptyContinuation,
        "NoEmptyContinuation",
        "no-empty-continuation",
        "Empty continuation lines will become errors in a future release",
    ),
    (
        Rule::ConsistentInstructionCasing,
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    (Rule::DuplicateStageName, "DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
    (
        Rule::ReservedStageName,
        "ReservedStageName",
        "reserved-stage-name",
        "Reserved words should not be used as stage names",
    ),
    (
        Rule::JsonArgsRecommended,
        "JSONArgsRecommended",
        "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    (
        Rule::MaintainerDeprecated,
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    (Rule::UndefinedArgInFrom, "UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs"),
    (
        Rule::WorkdirRelativePath,
        "WorkdirRelativePath",
        "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    ),
    (Rule::UndefinedVar, "UndefinedVar", "undefined-var", "Variables should be defined before their use"),
    (
        Rule::MultipleInstructionsDisallowed,
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    (
        Rule::LegacyKeyValueFormat,
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used",
    ),
    (
        Rule::RedundantTargetPlatform,
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    (
        Rule::SecretsUsedInArgOrEnv,
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands",
    ),
    (
        Rule::InvalidDefaultArgInFrom,
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    (
        Rule::FromPlatformFlagConstDisallowed,
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value",
    ),
    (
        Rule::CopyIgnoredFile,
        "CopyIgnoredFile",
        "copy-ignored-file",
        "Attempting to Copy file that is excluded by .dockerignore",
    ),
    (
        Rule::InvalidDefinitionDescription,
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ),
    (
        Rule::ExposeProtoCasing,
        "ExposeProtoCasing",
        "expose-proto-casing",
        "Protocol in EXPOSE instruction should be lowercase",
    ),
    (
        Rule::ExposeInvalidFormat,
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    ),
];

impl Rule {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        RULES.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Rule, &'static str, &'static str, &'static str) {
        RULES.iter().find(|row| row.0 == self).expect("every rule has a row")
    }

    /// `JSONArgsRecommended`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Its page.
    pub fn url(self) -> String {
        format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.row().2)
    }

    /// What it is about, one sentence.
    pub fn description(self) -> &'static str {
        self.row().3
    }

    /// It speaks only if it is asked to: `# check=experimental=`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::CopyIgnoredFile | Self::InvalidDefinitionDescription)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_its_own_row() {
        for (index, rule) in Rule::all().enumerate() {
            assert_eq!(rule as usize, index);
            assert_eq!(rule.name().to_lowercase(), format!("{rule:?}").to_lowercase());
            let page = rule.url().rsplit('/').nth(1).unwrap().replace('-', "");
            assert_eq!(page, rule.name().to_lowercase());
        }
    }
}
